"""
The API of the running platform: how the command line reaches the one owner of the state. JSON over
HTTP.

POST /api/NAME with the arguments as an object answers {"result": ..}, or 400 {"error": sentence}.
Only from this machine, and only with the token that lies in the platform's folder. Names and
arguments: the table below.
"""

import inspect
import json
import secrets
from dataclasses import asdict, is_dataclass

from aiohttp import web

from tools.platform import model
from tools.platform.model import PlatformError
from tools.sign.manifest import Signed

_HEADER = "Authorization"
_SCHEME = "Bearer "
_LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
_CHUNK = 256 * 1024  # bytes

_NUMBER = (int, float)
# What may be called, on the engine or the registry, and the types of its arguments.
CALLS = {
    "add_product": {"key": str, "name": str, "signed": bool},
    "require_signed": {"key": str},
    "products": {},
    "add_device": {"product": str, "identifier": str, "name": str},
    "devices": {"product": str, "secrets": bool},
    "firmware": {"product": str},
    "upgrade": {
        "firmware": (int, str),
        "devices": (list, type(None)),
        "policy": str,
        "timeout_s": _NUMBER,
        "retries": int,
        "interval_s": _NUMBER,
        "valid_s": _NUMBER,
    },
    "batches": {},
    "batch": {"batch": int},
    "status": {"batch": int},
    "abort": {"batch": int},
    "events": {"device": str},
}


def add_routes(app: web.Application, platform):
    """platform: server.Platform."""
    app.router.add_post("/api/upload", _guarded(platform, _upload))
    app.router.add_post("/api/{name}", _guarded(platform, _call))


def _guarded(platform, handler):
    async def guarded(request):
        given = request.headers.get(_HEADER, "")
        if request.remote not in _LOOPBACK:
            return _error(403, "the API is for this machine alone")
        if not model.same(given, _SCHEME + platform.token):
            return _error(401, "the token is wrong")
        try:
            return web.json_response({"result": await handler(platform, request)}, dumps=_dumps)
        except PlatformError as error:
            return _error(400, str(error))

    return guarded


async def _call(platform, request):
    name = request.match_info["name"]
    types = CALLS.get(name)
    try:
        arguments = await request.json()
    except ValueError as error:
        raise PlatformError("the arguments are no JSON") from error
    if types is None or type(arguments) is not dict:
        raise PlatformError(f"no call {name} with such arguments")
    for key, value in arguments.items():
        if not _fits(value, types.get(key)):
            raise PlatformError(f"{name}: {key} = {value!r} is not possible")
    method = getattr(platform.engine, name, None) or getattr(platform.registry, name)
    try:
        bound = inspect.signature(method).bind(**arguments)
    except TypeError as error:
        raise PlatformError(f"{name}: {error}") from error
    return method(*bound.args, **bound.kwargs)


async def _upload(platform, request):
    query = request.query
    platform.files.folder.mkdir(parents=True, exist_ok=True)
    path = platform.files.folder / f"upload-{secrets.token_hex(8)}"
    size = 0
    try:
        with path.open("wb") as file:
            async for chunk in request.content.iter_chunked(_CHUNK):
                size += len(chunk)
                if size > model.FILE_MAX:
                    raise PlatformError(f"the file is longer than {model.FILE_MAX} bytes")
                file.write(chunk)
        names = "product", "version", "name", "file", "board", "manifest", "signature"
        product, version, name, file, board, *signed = (query.get(key, "") for key in names)
        return await platform.registry.upload(
            product, path, version, name, file, Signed(*signed) if any(signed) else None, board
        )
    finally:
        path.unlink(missing_ok=True)


def _fits(value, kind):
    if kind is None or (type(value) is bool and kind is not bool):
        return False
    texts = type(value) is not list or all(type(item) is str for item in value)
    return isinstance(value, kind) and texts


def _error(status, text):
    return web.json_response({"error": text}, status=status)


def _dumps(value):
    return json.dumps(value, default=lambda obj: asdict(obj) if is_dataclass(obj) else str(obj))
