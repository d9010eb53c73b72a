"""
The wire, read from this side: the names of `ota/protocol.py`, and messages of devices with their
types checked.

The device module trusts less and checks later, for its size; here each field is what it should be,
or the message is refused.
"""

import json
from collections.abc import Iterable

from ota import protocol

UPGRADE = protocol._UPGRADE
UPGRADE_REPLY = protocol._UPGRADE_REPLY
PROGRESS = protocol._PROGRESS
VERSION = protocol._VERSION
GET = protocol._GET
GET_REPLY = protocol._GET_REPLY

FAILED = protocol._FAILED
STATUSES = (
    protocol._DOWNLOADING,
    protocol._VERIFYING,
    protocol._BURNING,
    protocol._RESTARTING,
    protocol._SUCCEEDED,
    protocol._FAILED,
)
LATE = protocol._LATE
FAILED_BEFORE = protocol._FAILED_BEFORE
ACCEPTING = (protocol._ACCEPTED, protocol._LATER)

FROM_DEVICE = (UPGRADE_REPLY, PROGRESS, VERSION, GET)  # the names that a device publishes

_VERSION_CHARACTERS = "._-"
_CODE_MAX = 99_999  # ours have three digits


class Malformed(Exception):
    """A message that is not as the protocol says."""


def topic(key: tuple[str, str], name: str) -> str:
    """key: product key and identifier, or "+" for any."""
    return protocol._PREFIX % key + name


def own(key: Iterable[str]) -> str:
    """What all topics of a device begin with. key: product key and identifier."""
    return "/sys/" + "/".join(key) + "/"


def read(payload: bytes) -> tuple[str, int | None, dict]:
    """
    Takes a message apart: msgId ("" = none), code (None = none), data ({} = none). Raises
    Malformed.
    """
    try:
        msg_id, code, data = protocol.decode(payload)
    except protocol.OTAError as error:
        raise Malformed from error
    data = {} if data is None else data
    if type(data) is not dict or printable(msg_id) != msg_id:
        raise Malformed
    if code is not None:
        checked(code)
    return msg_id, code, {key.strip(): value for key, value in data.items()}


def write(msg_id: str, data: dict) -> bytes:
    """A command, or an answer to get, in the envelope of all messages."""
    return json.dumps({"msgId": msg_id, "version": "1.0", "data": data}).encode()


def not_existed(msg_id: str, version: str) -> str:
    """The answer to a get of what there is not. Source: the guidance, 8."""
    message = f"FirmwareVersion {version} not existed"
    return json.dumps({"msgId": msg_id, "code": 404, "message": message})


def checked(code: object) -> int:
    """A code that one of ours could be. Raises Malformed."""
    if type(code) is not int or not 0 <= code <= _CODE_MAX:
        raise Malformed
    return code


def word(data: dict, key: str) -> str:
    """
    An enumerated value or a name, that comes with stray spaces in the guidance. Raises Malformed.
    """
    value = data.get(key)
    if type(value) is not str or printable(value) != value:
        raise Malformed
    return value.strip()


def printable(text: str) -> str:
    """The text with ? for what neither people nor data bases can read."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def is_version(text: str) -> bool:
    """True for 1 to 100 of A-Z a-z 0-9 . _ -"""
    return text.isascii() and protocol.is_text(text, _VERSION_CHARACTERS, protocol._VERSION_MAX)
