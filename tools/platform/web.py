"""
The web side put together: API, console, files; and uvicorn, which serves them in an event loop
that is there.
"""

import asyncio
import contextlib
import logging
import socket

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException

from tools.platform import api, console, model, wire
from tools.platform.access import Denied, TooOften
from tools.platform.engine import AWAY
from tools.platform.model import NotFound, PlatformError

_STOP_S = 1  # for connections that are open: a download that runs does not hold it up
_HEADERS_MAX = 32 * 1024  # bytes
_BODY_MAX = 1024 * 1024  # bytes, but of an upload
_PROXIES = ["127.0.0.1", "::1"]
_UPLOADS = ("/firmware", "/api/firmware")
# Nothing but what comes from here, no frames, and nothing written into a page runs.
_CSP = "Content-Security-Policy"
_SAFE = {
    _CSP: (
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; "
        "object-src 'none'; img-src 'self' data:"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
_DOCS = "/api/docs"
# Its page has a script and styles written into it.
_DOCS_CSP = "default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


def application(platform) -> FastAPI:
    """platform: server.Platform, with its engine, registry, access and files."""
    app = FastAPIOffline(
        title="Firmware upgrades",
        description="The platform's API. Who calls shows a token, or is the console.",
        version="1",
        docs_url=_DOCS,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        static_url="/api/static",
    )
    app.state.platform = platform
    app.include_router(platform.files.router())
    app.include_router(api.open_routes)
    app.include_router(api.routes)
    console.add_to(app)
    app.add_middleware(_Bounded, platform=platform)
    app.add_middleware(_Safe)

    @app.exception_handler(PlatformError)
    async def refused(request: Request, error: PlatformError):
        return _problem(request, _status(error), str(error))

    async def away(request: Request, error: Exception):
        return _away(request)

    for kind in AWAY:
        app.add_exception_handler(kind, away)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return _problem(request, 422, f"{where}: {first['msg']}" if where else first["msg"])

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException):
        return _problem(request, error.status_code, str(error.detail), error.headers)

    return app


class _Bounded:
    """
    Refuses a body that is too long, before it is read: a large one must be an upload, and come
    from somebody who may.
    """

    def __init__(self, app, platform):
        self._app, self._platform = app, platform

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        most = _BODY_MAX
        if scope["path"] in _UPLOADS and scope["method"] == "POST":
            most = model.FILE_MAX + _BODY_MAX
            try:
                known = await run_in_threadpool(api.is_known, self._platform, Request(scope))
            except AWAY:
                await _away(Request(scope))(scope, receive, send)
                return
            if not known:
                most = 0
        if length.isdecimal() and int(length) > most:
            await _too_long(Request(scope), most)(scope, receive, send)
            return
        left = most

        async def counted():
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, "this is too long")
            return message

        await self._app(scope, counted, send)


def _away(request):
    return _problem(request, 503, "the data base is away: try again")


def _too_long(request, most):
    if most:
        return _problem(request, 413, f"this is too long: at most {most} bytes are possible")
    return _problem(request, 401, "log in, or show a token")


class _Safe:
    """Puts the headers that keep a browser safe on each answer."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        safe = _SAFE | ({_CSP: _DOCS_CSP} if scope.get("path") == _DOCS else {})

        async def with_headers(message):
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in safe.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)


def _status(error):
    if isinstance(error, TooOften):
        return 429
    if isinstance(error, Denied):
        return 401
    return 404 if isinstance(error, NotFound) else 400


def _problem(request, status, text, headers=None):
    text = wire.printable(text)  # it may hold what somebody sent
    if status == 204:
        return JSONResponse(None, 204, headers)
    if console.shows(request):
        return console.problem(request, status, text)
    return JSONResponse({"error": text}, status, headers)


class Server(uvicorn.Server):
    """
    Serves an application on a socket that listens, in the running event loop. proxy: True = one on
    this machine stands before it, and tells who calls, and how.
    """

    def __init__(self, app: FastAPI, sock: socket.socket, proxy: bool):
        logging.getLogger("uvicorn").addHandler(logging.NullHandler())
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=proxy,
            forwarded_allow_ips=_PROXIES,
            h11_max_incomplete_event_size=_HEADERS_MAX,
            timeout_graceful_shutdown=_STOP_S,
        )
        super().__init__(config)
        self._socket = sock
        self._serving: asyncio.Task | None = None

    @contextlib.contextmanager
    def capture_signals(self):
        """Signals are for who runs the platform."""
        yield

    async def start(self):
        """Returns when it answers."""
        self._serving = asyncio.create_task(self.serve([self._socket]))
        while not self.started and not self._serving.done():
            await asyncio.sleep(0.005)

    async def stop(self):
        """Harmless when it never started."""
        self.should_exit = True
        if self._serving:
            await asyncio.wait([self._serving])
        # uvicorn ends what answers, and leaves the connection open: a device would wait for more.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        self._socket.close()
