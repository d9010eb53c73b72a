"""
Firmware files over HTTP: Range, If-Range, ETag, HEAD by aiohttp's FileResponse; an access log; a
brake.

What is added to aiohttp 3.14: it takes If-Range for a date alone and would resume another file by
an ETag that no longer fits; and it sends by sendfile, which no brake and no count reaches.
"""

import asyncio
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import hdrs, web

_LOG_MAX = 10_000  # the newest requests
_CHUNK = 16 * 1024  # bytes
_SLICES = 20  # pieces a second when the brake is on, so that bars move
_SEND_BUFFER = 8 * 1024  # bytes, when the brake is on


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
    it runs.
    """

    def __init__(self, folder: Path, throttle: int | None = None):
        self.folder, self.throttle = folder, throttle
        self.log: deque[Access] = deque(maxlen=_LOG_MAX)

    def add_routes(self, app: web.Application):
        app.router.add_get(r"/firmware/{id:\d+}/{file:[A-Za-z0-9][A-Za-z0-9_.-]*}", self._get)

    def path(self, number: int, file: str) -> Path:
        return self.folder / str(number) / file

    async def _get(self, request):
        access = Access(request.path, request.headers.get(hdrs.RANGE, ""), request.method)
        self.log.append(access)
        path = self.path(int(request.match_info["id"]), request.match_info["file"])
        return _Firmware(path, access, self.throttle)


class _Firmware(web.FileResponse):
    def __init__(self, path, access, throttle):
        super().__init__(path, headers={hdrs.CONTENT_TYPE: "application/octet-stream"})
        self._access, self._throttle = access, throttle

    async def prepare(self, request):
        try:
            return await super().prepare(_without_wrong_range(request, self._path))
        finally:
            self._access.status = self.status
            self._access.ended = True

    async def _sendfile(self, request, fobj, offset, count):
        # The one private method of aiohttp that is replaced; tests/test_platform_files.py guards
        # it.
        access, throttle = self._access, self._throttle
        access.status, access.start, access.length = self.status, offset, count
        writer = await web.StreamResponse.prepare(self, request)
        chunk = min(_CHUNK, max(1, throttle // _SLICES)) if throttle else _CHUNK
        if throttle and request.transport:
            _shorten(request.transport)
        loop = asyncio.get_running_loop()
        began = loop.time()
        fobj.seek(offset)
        while access.sent < count:
            data = fobj.read(min(chunk, count - access.sent))
            if not data:
                break
            await writer.write(data)
            await writer.drain()
            access.sent += len(data)
            if throttle:
                await asyncio.sleep(began + access.sent / throttle - loop.time())
        return writer


def _shorten(transport):
    # Else a cut falls far behind what was "sent": drain() waits for the kernel, which takes
    # little.
    transport.set_write_buffer_limits(high=0)
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)


def _without_wrong_range(request, path):
    # RFC 9110: Range is for GET (14.2), and after an If-Range that does not fit it is ignored
    # (13.1.5).
    tag = request.headers.get(hdrs.IF_RANGE, "")
    if hdrs.RANGE not in request.headers:
        return request
    if request.method == hdrs.METH_GET and not (tag.endswith('"') and tag != _etag(path)):
        return request
    return request.clone(headers={k: v for k, v in request.headers.items() if k != hdrs.RANGE})


def _etag(path):
    # The same words as FileResponse; weak ones never fit here.
    try:
        stat = path.stat()
    except OSError:
        return ""
    return f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
