"""
The console: web pages for operators, made on the server, with htmx for what is live. In the words
of docs/protocol.md.

The pages do what the API does, by the same calls and models. All text in a page is escaped by
Jinja2, whoever said it; no page has a script of its own.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path as FilePath
from typing import Annotated, NamedTuple

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, FastAPI, File, Form, Path, Query, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from tools.codes import CODES
from tools.platform import access, api, model
from tools.platform.model import PlatformError, Session, same
from tools.toolchain import WEB

ROWS = 50  # on a page
_EVENTS = 200
_LIVE_S = 0.5  # between two looks at what is shown, the least
_REST = 10  # times as long as a look takes: a large batch is counted less often
_LIVE_MAX = 200  # pages that are live at once
_LOGINS_MAX, _LOGINS_WAIT = 2, 20  # passwords that are looked at at once, that wait for it
_HERE = FilePath(__file__).parent

_templates = Jinja2Templates(_HERE / "templates")
_templates.env.filters["time"] = lambda value: (
    time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value)) if value is not None else "never"
)
_templates.env.filters["bytes"] = lambda value: f"{value:,}"
_templates.env.filters["css"] = lambda status: status.lower().replace(" ", "-")
_templates.env.globals |= {"model": model, "csrf_header": api.CSRF, "codes": CODES}


class _Login(Exception):
    """Nobody is logged in: show the form."""


class _Ask(NamedTuple):
    platform: object  # server.Platform
    request: Request
    session: Session


# A field of a form. With a bound pydantic also refuses what is no text (lone surrogates).
_Blank = Annotated[str, Form(max_length=2**20)]
_Number = Annotated[int, Path(ge=1, le=2**63 - 1)]


def shows(request: Request) -> bool:
    """True when this is a page, not the API or a file."""
    return not request.url.path.startswith(("/api/", "/firmware/check", "/static/")) and (
        "text/html" in request.headers.get("Accept", "")
    )


def problem(request: Request, status: int, text: str) -> HTMLResponse:
    """A page that says what was wrong."""
    return _templates.TemplateResponse(
        request, "problem.html", {"text": text, "status": status, "session": None}, status
    )


def add_to(app: FastAPI):
    """The pages, and what they load. app: with its state.platform, server.Platform."""
    app.state.live = asyncio.Semaphore(_LIVE_MAX)
    app.state.logins = CapacityLimiter(_LOGINS_MAX)
    app.mount("/static/lib", StaticFiles(directory=WEB, check_dir=False), "lib")
    app.mount("/static", StaticFiles(directory=_HERE / "static"), "static")
    app.include_router(routes)

    @app.exception_handler(_Login)
    async def log_in_first(request: Request, error: _Login):
        if request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
            return RedirectResponse("/login", 303)
        return problem(request, 401, "Log in first.")


routes = APIRouter(include_in_schema=False)

# Log in


@routes.get("/login")
def login_form(platform: api.Here, request: Request):
    return _login_page(platform, request)


@routes.post("/login")
async def log_in(
    platform: api.Here,
    request: Request,
    csrf: _Blank = "",
    name: _Blank = "",
    password: _Blank = "",
):
    cookie = request.cookies.get(api.COOKIE, "")
    address = request.client.host if request.client else ""
    logins = request.app.state.logins
    if logins.statistics().tasks_waiting >= _LOGINS_WAIT:
        text = "too many log in at once: try again in a minute"
        return await run_in_threadpool(_login_page, platform, request, text, 429)
    try:
        # Few at a time: each takes the memory and the time of argon2.
        made = await to_thread.run_sync(
            platform.access.log_in,
            *(cookie, csrf, name, password, address),
            limiter=logins,
        )
    except access.Denied as error:
        status = 429 if isinstance(error, access.TooOften) else 403
        return await run_in_threadpool(_login_page, platform, request, str(error), status)
    response = RedirectResponse("/", 303)
    _give(response, request, made, access.SESSION_S)
    return response


def _login_page(platform, request, text="", status=200):
    cookie, session = platform.access.greet()
    page = {"session": None, "csrf": session.csrf, "text": text}
    response = _templates.TemplateResponse(request, "login.html", page, status)
    _give(response, request, cookie, access.LOGIN_S)
    return response


def _give(response, request, cookie, seconds):
    secure = request.url.scheme == "https"
    response.set_cookie(
        api.COOKIE, cookie, int(seconds), httponly=True, samesite="strict", secure=secure
    )


def _asked(platform: api.Here, request: Request) -> _Ask:
    session = platform.access.session(request.cookies.get(api.COOKIE, ""))
    if session is None:
        raise _Login
    return _Ask(platform, request, session)


Asked = Annotated[_Ask, Depends(_asked)]


def _sent(ask: Asked, csrf: _Blank = "") -> _Ask:
    if not same(csrf, ask.session.csrf):
        raise access.Denied("this form is not from here: load the page again")
    return ask


Sent = Annotated[_Ask, Depends(_sent)]


def _show(ask: _Ask, template: str, page: dict, code: int = 200):
    page["session"] = ask.session
    return _templates.TemplateResponse(ask.request, template, page, code)


@routes.post("/logout")
def log_out(ask: Sent):
    ask.platform.access.log_out(ask.request.cookies[api.COOKIE])
    response = RedirectResponse("/login", 303)
    response.delete_cookie(api.COOKIE)
    return response


# Batches


@routes.get("/")
def batches(ask: Asked, before: Annotated[int | None, Query(ge=0, le=2**63 - 1)] = None):
    found = ask.platform.engine.batches(before, ROWS)[::-1]
    return _show(ask, "batches.html", {"batches": found, "more": len(found) == ROWS})


def _batch_form(ask: _Ask, given: dict, text: str = "", code: int = 200):
    page = {"firmware": ask.platform.registry.firmware(), "given": given, "text": text}
    return _show(ask, "batch_new.html", page, code)


@routes.get("/batches/new")
def new_batch(ask: Asked, firmware: str = ""):
    return _batch_form(ask, {"firmware": firmware})


@routes.post("/batches")
def make_batch(
    ask: Sent,
    firmware: _Blank = "",
    devices: _Blank = "",
    policy: _Blank = "standard",
    minutes: _Blank = "60",
    retries: _Blank = "0",
    interval: _Blank = "1",
    days: _Blank = "1",
    shares: _Blank = "100",
    failures: _Blank = "100",
):
    given = {name: value for name, value in locals().items() if type(value) is str}
    try:
        new = api.NewBatch(
            firmware=_number(firmware, "firmware"),
            devices=devices.replace(",", " ").split() or None,
            policy=policy,
            timeout_s=_number(minutes, "device time-out") * 60,
            retries=_number(retries, "retries"),
            interval_s=_number(interval, "interval") * 60,
            valid_s=_number(days, "validity") * 86400,
            shares=shares.replace(" ", ""),
            failures=_number(failures, "failures"),
        )
        begun = ask.platform.engine.upgrade(**new.model_dump())
    except ValidationError as error:
        first = error.errors()[0]
        return _batch_form(ask, given, f"{first['loc'][0]}: {first['msg']}", 400)
    except PlatformError as error:
        return _batch_form(ask, given, str(error), 400)
    return RedirectResponse(f"/batches/{begun['batch']}", 303)


def _page_of(ask: _Ask, batch: int, after: str, status: str) -> dict:
    rows = ask.platform.engine.status(batch, after, ROWS, status)
    return {
        "batch": ask.platform.engine.batch(batch),
        "rows": rows,
        "after": after,
        "status": status,
        "more": rows[-1].device if len(rows) == ROWS else "",
    }


@routes.get("/batches/{batch}")
def batch(ask: Asked, batch: _Number, after: str = "", status: str = ""):
    return _show(ask, "batch.html", _page_of(ask, batch, _clean(after), _clean(status)))


def _pieces(ask: _Ask, batch: int, names: list[str]) -> dict[str, str] | None:
    # What the page shows, by the names of its events; None = the session has ended.
    if ask.platform.access.session(ask.request.cookies.get(api.COOKIE, "")) is None:
        return None
    page = {"batch": ask.platform.engine.batch(batch), "session": ask.session}
    found = {"head": _templates.get_template("_batch_head.html").render(page)}
    row = _templates.get_template("_row.html")
    for item in ask.platform.engine.status(batch, devices=names):
        found[f"row-{item.device}"] = row.render(page | {"row": item})
    return found


def _known(ask: Asked, batch: _Number) -> int:
    # Asked before the answer begins: later there can be no 404.
    return ask.platform.engine.batch(batch)["id"]


@routes.get("/batches/{batch}/live", response_class=EventSourceResponse)
async def batch_live(
    ask: Asked, batch: Annotated[int, Depends(_known)], after: str = "", status: str = ""
) -> AsyncIterator[ServerSentEvent]:
    live = ask.request.app.state.live
    if live.locked():
        return  # the browser asks again, later
    arguments = ask, batch, _clean(after), _clean(status)
    async with live:
        page = await run_in_threadpool(_page_of, *arguments)
        names = [row.device for row in page["rows"]]  # those stay, whatever their status
        shown: dict[str, str] = {}
        began = time.monotonic()
        while now := await run_in_threadpool(_pieces, ask, batch, names):
            took = time.monotonic() - began
            for name, html in now.items():
                if shown.get(name) != html:
                    yield ServerSentEvent(raw_data=html, event=name)
            shown = now
            await asyncio.sleep(max(_LIVE_S, _REST * took))
            began = time.monotonic()


@routes.post("/batches/{batch}/abort")
def abort(ask: Sent, batch: _Number):
    ask.platform.engine.abort(batch)
    return RedirectResponse(f"/batches/{batch}", 303)


@routes.post("/batches/{batch}/retry")
def retry(ask: Sent, batch: _Number, device: _Blank = ""):
    ask.platform.engine.retry(batch, _clean(device))
    return RedirectResponse(f"/batches/{batch}", 303)


# Firmware


def _firmware_page(ask: _Ask, given: dict, text: str = "", code: int = 200):
    registry = ask.platform.registry
    page = {
        "firmware": registry.firmware()[::-1],
        "products": registry.products(),
        "given": given,
        "text": text,
    }
    return _show(ask, "firmware.html", page, code)


@routes.get("/firmware")
def firmware(ask: Asked):
    return _firmware_page(ask, {})


@routes.post("/firmware")
def upload(
    ask: Sent,
    file: Annotated[UploadFile, File()],
    product: _Blank = "",
    version: _Blank = "",
    name: _Blank = "",
):
    given = {"product": product, "version": version, "name": name}
    try:
        api.take_upload(ask.platform, file, _clean(product), _clean(version), _clean(name))
    except PlatformError as error:
        return _firmware_page(ask, given, str(error), 400)
    return RedirectResponse("/firmware", 303)


@routes.post("/firmware/{number}/remove")
def remove_firmware(ask: Sent, number: _Number):
    try:
        ask.platform.registry.remove_firmware(number)
    except model.NotFound:
        raise
    except PlatformError as error:
        return _firmware_page(ask, {}, str(error), 400)
    return RedirectResponse("/firmware", 303)


# Devices


def _devices_page(ask: _Ask, after: str, text: str = "", made: dict | None = None, code=200):
    found = ask.platform.registry.devices("", False, after, ROWS)
    page = {
        "devices": found,
        "products": ask.platform.registry.products(),
        "more": found[-1]["identifier"] if len(found) == ROWS else "",
        "text": text,
        "made": made,
    }
    return _show(ask, "devices.html", page, code)


@routes.get("/devices")
def devices(ask: Asked, after: str = ""):
    return _devices_page(ask, _clean(after))


@routes.post("/devices")
def add_device(
    ask: Sent,
    product: _Blank = "",
    identifier: _Blank = "",
    name: _Blank = "",
):
    try:
        secret = ask.platform.registry.add_device(_clean(product), identifier, name)
    except PlatformError as error:
        return _devices_page(ask, "", str(error), code=400)
    made = {"product": product, "identifier": identifier, "secret": secret}
    return _devices_page(ask, "", made=made)


@routes.post("/products")
def add_product(ask: Sent, key: _Blank = "", name: _Blank = ""):
    try:
        ask.platform.registry.add_product(key, name)
    except PlatformError as error:
        return _devices_page(ask, "", str(error), code=400)
    return RedirectResponse("/devices", 303)


@routes.get("/devices/{identifier}")
def device(
    ask: Asked,
    identifier: str,
    before: Annotated[int | None, Query(ge=0, le=2**63 - 1)] = None,
):
    return _device_page(ask, _clean(identifier), before)


def _device_page(ask, identifier, before=None, made=None):
    found = ask.platform.registry.device(identifier)
    events = ask.platform.engine.events(identifier, _EVENTS, before)[::-1]
    page = {"device": found, "events": events, "more": len(events) == _EVENTS, "made": made}
    return _show(ask, "device.html", page)


@routes.post("/devices/{identifier}/secret")
def renew_secret(ask: Sent, identifier: str):
    made = ask.platform.registry.renew_secret(_clean(identifier))
    return _device_page(ask, identifier, made=made)


@routes.post("/devices/{identifier}/remove")
def remove_device(ask: Sent, identifier: str):
    ask.platform.registry.remove_device(_clean(identifier))
    return RedirectResponse("/devices", 303)


def _number(text, what):
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise PlatformError(f"{what} {text!r}: a number is needed")
    return int(text)


def _clean(text):
    # What no data base holds, nobody is called.
    if not text.isprintable():
        raise model.NotFound("no such name")
    return text
