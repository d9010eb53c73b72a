"""
Firmware files over HTTP: Range, If-Range, ETag, HEAD by Starlette's FileResponse; an access log; a
brake. Who may: see urls.py.
"""

import asyncio
import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import FileResponse

from tools.platform.urls import PATH, Refused, Signer

_LOG_MAX = 10_000  # the newest requests
_TEXT_MAX = 200  # characters of a path, or of a Range
_CHUNK = 64 * 1024  # bytes
_LEFT_S = 86400.0  # no upload takes that long
_SLICES = 20  # pieces a second when the brake is on, so that bars move


@dataclass
class Access:
    """
    One request. range: as asked for, "" = none; status: 0 while it is not known; start: the first
    byte that is sent, so where a download (re)started; length: bytes that were promised from
    there; sent: bytes so far; ended: no more come.
    """

    path: str
    range: str
    method: str
    time: float = field(default_factory=time.time)
    status: int = 0
    start: int = 0
    length: int = 0
    sent: int = 0
    ended: bool = False


class Files:
    """
    Serves /firmware/{id}/{file} out of folder/{id}/{file}.

    throttle: bytes a second for each connection, None = as fast as it goes. May be changed while
    it runs. signer: to be set before a request comes.
    """

    signer: Signer

    def __init__(self, folder: Path, throttle: int | None = None):
        self.folder, self.throttle = folder, throttle
        self.log: deque[Access] = deque(maxlen=_LOG_MAX)

    def tidy(self):
        """Takes away what uploads left behind that were cut."""
        for path in (*self.folder.glob("coming-*"), *self.folder.glob("upload-*")):
            if time.time() - path.stat().st_mtime > _LEFT_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def router(self) -> APIRouter:
        router = APIRouter(include_in_schema=False)
        router.add_api_route(PATH + "check", self._may, methods=["GET"])
        router.add_api_route(PATH + "{number}/{file}", self._get, methods=["GET", "HEAD"])
        return router

    async def _may(self, request: Request):
        """For a server that has the files itself, and asks whether a URL holds: 204 or 403."""
        path, _, query = request.headers.get("X-Original-URI", "").partition("?")
        self._check(
            path, Request({"type": "http", "query_string": query.encode("ascii", "replace")})
        )
        raise HTTPException(204)

    async def _get(self, request: Request, number: str, file: str):
        asked = request.url.path, request.headers.get("Range", "")
        access = Access(*(text[:_TEXT_MAX] for text in asked), request.method)
        self.log.append(access)
        try:
            # What is checked is what is served, whatever the URL is made of.
            self._check(f"{PATH}{number}/{file}", request)
            path = self.folder / number / file
            if not number.isdecimal() or not path.is_file():
                raise HTTPException(404, "no such file")
        except HTTPException as error:
            access.status, access.ended = error.status_code, True
            raise
        return _Firmware(path, access, lambda: self.throttle)

    def _check(self, path, request):
        query = request.query_params
        parts = [query.get(name, "") for name in ("device", "ends", "signature")]
        try:
            self.signer.check(path, *parts, time.time())
        except Refused as error:
            raise HTTPException(403, str(error)) from error


class _Firmware(FileResponse):
    def __init__(self, path, access: Access, throttle: Callable[[], int | None]):
        super().__init__(path, media_type="application/octet-stream")
        self._access, self._throttle = access, throttle

    async def __call__(self, scope, receive, send):
        if scope["method"] == "HEAD":  # RFC 9110, 14.2: Range is for GET
            headers = [item for item in scope["headers"] if item[0] != b"range"]
            scope = {**scope, "headers": headers}
        brake = self._throttle()
        self.chunk_size = min(_CHUNK, max(1, brake // _SLICES)) if brake else _CHUNK
        due = time.monotonic()

        async def counted(message):
            nonlocal due
            await send(message)
            if message["type"] == "http.response.start":
                self._began(message)
                return
            length = len(message.get("body", b""))
            self._access.sent += length
            if brake := self._throttle():
                due = max(due, time.monotonic() - 1) + length / brake
                await asyncio.sleep(due - time.monotonic())

        try:
            await super().__call__(scope, receive, counted)
        finally:
            self._access.ended = True

    def _began(self, message):
        self._access.status = message["status"]
        headers = dict(message["headers"])
        if message["status"] in (200, 206):
            self._access.length = int(headers[b"content-length"])
        span = headers.get(b"content-range", b"").decode()
        if message["status"] == 206 and span:
            self._access.start = int(span.removeprefix("bytes ").partition("-")[0])
