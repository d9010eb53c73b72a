"""
The HTTP API: what the console can do, for programs. JSON over HTTP, described by /api/openapi.json
and its page, /api/docs.

Who calls shows a token ("Authorization: Bearer ..."), or is the console of an operator: its
cookie, and in X-CSRF-Token what its pages carry. An answer that is no success is {"error":
sentence}.
"""

import secrets
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, File, Form, Path, Query, Request, Response, UploadFile
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tools.platform import model, rights
from tools.platform.access import Denied
from tools.platform.engine import PAGE, Row
from tools.platform.model import same
from tools.sign.manifest import Signed

COOKIE = "ota_session"
CSRF = "X-CSRF-Token"
_CHUNK = 256 * 1024  # bytes
_NUMBER_MAX = 2**63 - 1  # what a data base can hold

# Who may: shown in the description; _allowed asks.
_bearer = HTTPBearer(auto_error=False, description="a token, by `platform token add`")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, description="of the console")
_csrf = APIKeyHeader(name=CSRF, auto_error=False, description="with the cookie, if it changes")


# Words and numbers. What no data base holds is refused here; all else is for the rules.

_Text = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00-\x1f]*$")]
_Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:@-]{1,64}$")]
_Number = Annotated[int, Field(ge=0, le=_NUMBER_MAX)]
_Batch = Annotated[int, Path(ge=1, le=_NUMBER_MAX)]
_Limit = Annotated[int, Query(ge=1, le=PAGE)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _New(_Model):
    model_config = ConfigDict(extra="forbid", strict=True)


class Problem(_Model):
    """What was wrong, and what to do."""

    error: str


class NewProduct(_New):
    key: Annotated[_Text, Field(description='"" = one is made up')] = ""
    name: _Text = ""
    signed: Annotated[bool, Field(description="publish signed firmware alone for it")] = False


class ProductKey(_Model):
    key: str


class NewDevice(_New):
    product: _Text
    identifier: _Text
    name: _Text = ""


class ManyDevices(_New):
    product: _Text
    identifiers: Annotated[list[_Text], Field(min_length=1, max_length=PAGE)]


class DeviceSecret(_Model):
    product: str
    identifier: str
    secret: str


class DeviceOut(_Model):
    product: str
    identifier: str
    name: str
    version: Annotated[str, Field(description='as last reported, "" = never')]
    seen: Annotated[float | None, Field(description="seconds since 1970, null = never")]
    secret: str | None = None


class EventOut(_Model):
    id: int
    time: float
    batch: int | None
    kind: str
    text: str


class FirmwareId(_Model):
    id: int
    name: str


class NewBatch(_New):
    firmware: Annotated[_Number | _Text, Field(description="its id or name")]
    devices: Annotated[
        list[_Text] | None, Field(description="identifiers, null = all of its product")
    ] = None
    policy: Literal[model.POLICIES] = "standard"
    timeout_s: Annotated[float, Field(description="of a device, from its first progress")] = 3600
    retries: Annotated[int, Field(ge=0, le=model.RETRIES_MAX)] = 0
    interval_s: Annotated[float, Field(description="before a retry")] = 60
    valid_s: Annotated[float, Field(description="of the batch")] = 86400
    shares: Annotated[
        _Text, Field(description="of a gradual roll-out: percent, added up, like 5,25,100")
    ] = "100"
    failures: Annotated[
        int, Field(ge=0, le=100, description="above this percent of failures it stops")
    ] = 100


class BatchBegun(_Model):
    batch: int
    left_out: Annotated[dict[str, str], Field(description="devices, and why")]


class BatchOut(_Model):
    id: int
    firmware: str
    product: str
    version: str
    policy: str
    timeout_s: float
    retries: int
    interval_s: float
    created: float
    ends: float
    shares: str
    failures: int
    wave: int
    state: str
    why: Annotated[str, Field(description="it stopped by itself")]
    at_rest: bool
    devices: Annotated[int, Field(description="how many")]
    statuses: Annotated[dict[str, int], Field(description="how many have each")]


class Done(_Model):
    """It is done."""

    done: Literal[True] = True


class NewOperator(_New):
    name: _Text
    password: Annotated[str, Field(max_length=1000)]


class NewPassword(_New):
    password: Annotated[str, Field(max_length=1000)]


class NewToken(_New):
    name: _Text


class TokenMade(_Model):
    name: str
    token: Annotated[str, Field(description="nobody can tell it afterwards")]


class TokenOut(_Model):
    name: str
    created: float


class Health(_Model):
    broker: Annotated[bool, Field(description="it hears and reaches devices")]
    waiting: Annotated[int, Field(description="messages to devices that wait for the broker")]


class BrokerAsks(BaseModel):
    """
    What a broker tells of a client, who may say anything; more fields are ignored. Whatever text
    it is, there is an answer, since a broker may take an error for a yes.
    """

    clientid: str | None = None
    username: str | None = None
    password: str | None = None
    topic: str | None = None

    def words(self, *names: str) -> list[str] | None:
        """Those fields; None = nobody of ours says that."""
        found = [getattr(self, name) or "" for name in names]
        return found if all(map(str.isprintable, found)) else None


class BrokerAnswer(_Model):
    """In the words of EMQX."""

    result: Literal["allow", "deny"]


def _platform(request: Request):
    return request.app.state.platform


Here = Annotated[object, Depends(_platform)]  # server.Platform


def _holds(platform, token):
    return same(token, platform.token) or platform.access.may_call(token)


def is_known(platform, request: Request) -> bool:
    """True when it has a token or a session; what it may do is asked later."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer" and _holds(platform, token.strip()):
        return True
    return platform.access.session(request.cookies.get(COOKIE, "")) is not None


def _allowed(
    request: Request,
    platform: Here,
    token: Annotated[object, Depends(_bearer)],
    cookie: Annotated[str | None, Depends(_cookie)],
    csrf: Annotated[str | None, Depends(_csrf)],
):
    if token:
        if _holds(platform, token.credentials):
            return
        raise Denied("the token is wrong")
    session = platform.access.session(cookie or "")
    if session is None:
        raise Denied("log in, or show a token")
    if request.method not in ("GET", "HEAD") and not same(csrf or "", session.csrf):
        raise Denied(f"{CSRF} is missing, or wrong")


routes = APIRouter(
    prefix="/api",
    dependencies=[Depends(_allowed)],
    responses={code: {"model": Problem} for code in (400, 401, 404, 422)},
)


# What a load balancer asks has no token.
open_routes = APIRouter(prefix="/api")


@open_routes.get("/health", tags=["health"], responses={503: {"model": Health | Problem}})
def health(platform: Here, response: Response) -> Health:
    """200 while the platform can do its work; 503 while the broker or the data base is away."""
    found = platform.engine.health()
    response.status_code = 200 if found["broker"] else 503
    return found


@routes.get("/products", tags=["products"])
def list_products(platform: Here) -> list[model.Product]:
    return platform.registry.products()


@routes.post("/products", tags=["products"])
def add_product(platform: Here, new: NewProduct) -> ProductKey:
    return {"key": platform.registry.add_product(new.key, new.name, new.signed)}


@routes.post("/products/{key}/signed", tags=["products"])
def publish_signed_firmware_alone(platform: Here, key: _Id) -> Done:
    platform.registry.require_signed(key)
    return {}


@routes.get("/devices", tags=["devices"], response_model_exclude_unset=True)
def list_devices(
    platform: Here,
    product: _Text = "",
    secrets: bool = False,
    after: _Text = "",
    limit: _Limit = PAGE,
) -> list[DeviceOut]:
    """By identifier; `after` is the last one of the page before."""
    return platform.registry.devices(product, secrets, after, limit)


@routes.post("/devices", tags=["devices"])
def add_device(platform: Here, new: NewDevice) -> DeviceSecret:
    secret = platform.registry.add_device(new.product, new.identifier, new.name)
    return {"product": new.product, "identifier": new.identifier, "secret": secret}


@routes.post("/devices/import", tags=["devices"])
def add_devices(platform: Here, new: ManyDevices) -> list[DeviceSecret]:
    """All or none. Those that are there already stay as they are: the call may come again."""
    return platform.registry.add_devices(new.product, new.identifiers)


@routes.get("/devices/{identifier}", tags=["devices"], response_model_exclude_unset=True)
def get_device(platform: Here, identifier: _Id) -> DeviceOut:
    return platform.registry.device(identifier)


@routes.delete("/devices/{identifier}", tags=["devices"])
def remove_device(platform: Here, identifier: _Id) -> Done:
    """With its log, and its part of all batches, when these are over. It comes in no more."""
    platform.registry.remove_device(identifier)
    return {}


@routes.post("/devices/{identifier}/secret", tags=["devices"])
def renew_secret(platform: Here, identifier: _Id) -> DeviceSecret:
    """A new one; the one before holds no more."""
    return platform.registry.renew_secret(identifier)


@routes.get("/devices/{identifier}/events", tags=["devices"])
def list_events(
    platform: Here,
    identifier: _Id,
    limit: _Limit = PAGE,
    before: Annotated[int | None, Query(ge=0, le=_NUMBER_MAX)] = None,
) -> list[EventOut]:
    """The last lines of its log, oldest first; `before` is the first id of the page after."""
    return platform.engine.events(identifier, limit, before)


@routes.get("/firmware", tags=["firmware"], response_model_exclude={"__all__": {"removed"}})
def list_firmware(platform: Here, product: _Text = "") -> list[model.Firmware]:
    return platform.registry.firmware(product)


@routes.post("/firmware", tags=["firmware"])
def upload_firmware(
    platform: Here,
    file: Annotated[UploadFile, File(description="named as it shall be in the URL")],
    product: Annotated[_Text, Form()],
    version: Annotated[_Text, Form()],
    name: Annotated[_Text, Form()] = "",
    board: Annotated[_Text, Form()] = "",
    manifest: Annotated[str, Form(max_length=4096)] = "",
    signature: Annotated[str, Form(max_length=4096)] = "",
) -> FirmwareId:
    return take_upload(platform, file, product, version, name, board, manifest, signature)


@routes.delete("/firmware/{firmware:path}", tags=["firmware"])
def remove_firmware(
    platform: Here, firmware: Annotated[_Text, Path(description="its id or name")]
) -> Done:
    """With its file. Batches that had it keep their history."""
    platform.registry.remove_firmware(model.id_or_name(firmware))
    return {}


@routes.get("/batches", tags=["batches"])
def list_batches(
    platform: Here,
    before: Annotated[int | None, Query(ge=0, le=_NUMBER_MAX)] = None,
    limit: _Limit = PAGE,
) -> list[BatchOut]:
    """The last ones, oldest first; `before` is the first id of the page after."""
    return platform.engine.batches(before, limit)


@routes.post("/batches", tags=["batches"])
def upgrade(platform: Here, new: NewBatch) -> BatchBegun:
    return platform.engine.upgrade(**new.model_dump())


@routes.get("/batches/{batch}", tags=["batches"])
def get_batch(platform: Here, batch: _Batch) -> BatchOut:
    return platform.engine.batch(batch)


@routes.get("/batches/{batch}/devices", tags=["batches"])
def list_batch_devices(
    platform: Here,
    batch: _Batch,
    after: _Text = "",
    limit: _Limit = PAGE,
    status: Literal[("", *model.STATUSES)] = "",
) -> list[Row]:
    """By identifier; `after` is the last one of the page before."""
    return platform.engine.status(batch, after, limit, status)


@routes.post("/batches/{batch}/abort", tags=["batches"])
def abort_batch(platform: Here, batch: _Batch) -> Done:
    """Stops the devices that are not Pushed yet."""
    platform.engine.abort(batch)
    return {}


@routes.post("/batches/{batch}/devices/{identifier}/retry", tags=["batches"])
def retry_device(platform: Here, batch: _Batch, identifier: _Id) -> Done:
    """One attempt more for a device that Failed."""
    platform.engine.retry(batch, identifier)
    return {}


@routes.get("/operators", tags=["access"])
def list_operators(platform: Here) -> list[str]:
    return platform.access.operators()


@routes.post("/operators", tags=["access"])
def add_operator(platform: Here, new: NewOperator) -> Done:
    platform.access.add_operator(new.name, new.password)
    return {}


@routes.put("/operators/{name}/password", tags=["access"])
def set_password(platform: Here, name: _Id, new: NewPassword) -> Done:
    """All sessions of that operator end."""
    platform.access.set_password(name, new.password)
    return {}


@routes.delete("/operators/{name}", tags=["access"])
def remove_operator(platform: Here, name: _Id) -> Done:
    platform.access.remove_operator(name)
    return {}


@routes.get("/tokens", tags=["access"])
def list_tokens(platform: Here) -> list[TokenOut]:
    return platform.access.tokens()


@routes.post("/tokens", tags=["access"])
def add_token(platform: Here, new: NewToken) -> TokenMade:
    return {"name": new.name, "token": platform.access.add_token(new.name)}


@routes.delete("/tokens/{name}", tags=["access"])
def remove_token(platform: Here, name: _Id) -> Done:
    platform.access.remove_token(name)
    return {}


@routes.post("/broker/login", tags=["broker"])
def may_log_in(platform: Here, asks: BrokerAsks) -> BrokerAnswer:
    """For a broker that asks whether a client may come in."""
    words = asks.words("clientid", "username", "password")
    allowed = words is not None and platform.registry.may_log_in(*words)
    return {"result": "allow" if allowed else "deny"}


@routes.post("/broker/topic", tags=["broker"])
def may_use_topic(platform: Here, asks: BrokerAsks) -> BrokerAnswer:
    """For a broker that asks whether a client that is in may publish or subscribe a topic."""
    words = asks.words("username", "topic")
    allowed = words is not None and rights.may(*words)
    return {"result": "allow" if allowed else "deny"}


def take_upload(
    platform, file: UploadFile, product, version, name="", board="", manifest="", signature=""
) -> dict:
    """A file that came by HTTP. Raises PlatformError."""
    platform.files.folder.mkdir(parents=True, exist_ok=True)
    path = platform.files.folder / f"upload-{secrets.token_hex(8)}"
    try:
        with path.open("xb") as copy:
            while chunk := file.file.read(_CHUNK):
                copy.write(chunk)
        signed = Signed(manifest, signature) if manifest or signature else None
        number = platform.registry.upload(
            product, path, version, name, file.filename or "firmware", signed, board
        )
    finally:
        path.unlink(missing_ok=True)
    return {"id": number, "name": platform.registry.find_firmware(number).name}
