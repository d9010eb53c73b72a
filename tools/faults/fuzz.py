"""
Messages gone wrong, drawn from a seed; and which answers the protocol allows to any message.

Shares no code with the agent: what is a good command is read from docs/protocol.md anew.
"""

import json
import random
import re
from collections.abc import Sequence

from .scene import OLD

MESSAGE_MAX = 16384  # bytes
OWN_ID = "own-id"  # in a command: stands for an id that no other has
GET_ID = "get-id"  # in an answer to `get`: stands for the id of the device's question
ACCEPTING = frozenset((200, 202))
# Not understood, for whatever reason.
REFUSING = frozenset((410, 411, 412, 414))
# Understood, but it does not come in time.
UNTIMELY = frozenset((413, 415, 416))

_MOST = 3  # mutations of one message

_ODD = (None, True, False, 0, -1, 1, 12, 2**31, 2**63, 2**64, 10**30, 1.5, 1e9, 1e300, "", " ")
_ODD += ("12", "\0", "\n", "\r\nX: y", "\u00e4", "\ud800", "\U0001f600", "x" * 65, "x" * 101)
_ODD += (
    "y" * 2000,
    "/",
    "../x",
    "%00",
    "0x" + "1" * 30,
    "-" * 32,
    "Standard ",
    "SILENT",
    "sha256",
)
_ODD += (
    [],
    {},
    [[]],
    [1, "2"],
    {"": ""},
    {"sign": 1},
    "https://127.0.0.1:9/x",
    "file:///x",
    "http:",
)

_BYTES = (
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b'"',
    b"\\",
    b"\\u",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
)
_BYTES += (
    b":",
    b"//",
    b"e99",
    b"NaN",
    b"Infinity",
    b"null",
    b"-",
    b"." * 9,
    b" " * 300,
    b"[" * 50,
)
_BYTES += (b"[" * 3000, b'{"a":' * 300, b"9" * 5000, b"x" * 20000)

_NO_PLACE = re.compile(r"https?:(?!//[^/?#])")  # a scheme, and no host: fails sooner or later
_URL = re.compile(r"https?://[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*")
_VERSION = re.compile(r"[A-Za-z0-9._-]{1,100}")
_SIGN = re.compile(r"[0-9A-Fa-f]{32}")


def good(msg_id: object = OWN_ID, **data) -> dict:
    """
    A good command, which fails as soon as it wants to connect. data: fields with other values,
    None = left out.
    """
    fields = {
        "policy": "standard",
        "size": 70000,
        "firmwareVersion": "9.9.9",
        "url": "http://127.0.0.1:9/firmware/9.9.9.bin",
        "sign": "0123456789abcdef0123456789abcdef",
        "signMethod": "Md5",
    } | data
    fields = {key: value for key, value in fields.items() if value is not None}
    return {"msgId": msg_id, "version": "1.0", "data": fields}


BASES = (
    good(),
    good(firmwareVersion="9.9.8", sign="f" * 32, policy="silent"),
    good(firmwareVersion=OLD),
)
ANSWER_BASES = (
    good(GET_ID) | {"code": 200},
    good(GET_ID, policy=None, size=None) | {"code": 200},
    {"msgId": GET_ID, "code": 404, "message": "FirmwareVersion  not existed"},
)


def messages(seed: str, count: int, bases: Sequence[dict]) -> list[bytes]:
    """Mutations of these messages, the same for the same seed."""
    chance = random.Random(seed)
    return [_mutation(chance, bases) for _ in range(count)]


def judged(payload: bytes, asked: bool) -> bool | None:
    """
    Whether this is a good command, or with asked a good answer to an empty `get`. None: the
    protocol does not say; or it is no JSON at all, of which MicroPython's reader takes more than
    the RFC allows (commas left out, text after the end).
    """
    if len(payload) > MESSAGE_MAX:
        return False
    doubts: list[str] = []

    def object_of(pairs: list) -> dict:
        found = {key.strip(): value for key, value in pairs}
        if len(found) < len(pairs):
            doubts.append("a key twice")
        return found

    try:
        message = json.loads(
            payload.decode(), object_pairs_hook=object_of, parse_constant=doubts.append
        )
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or not isinstance(message.get("data"), dict):
        return None if doubts else False
    data = message["data"]
    verdicts = [_is_id(message.get("msgId")), *_fields(data, asked)]
    if False in verdicts and not doubts:
        return False
    return None if doubts or None in verdicts else True


def allowed(payload: bytes, asked: bool) -> frozenset:
    """Codes of the reply, see judged."""
    good = judged(payload, asked)
    if good:
        return ACCEPTING | UNTIMELY
    return REFUSING if good is False else ACCEPTING | UNTIMELY | REFUSING


def _is_id(value: object) -> bool | None:
    if type(value) is float:
        return None
    if type(value) is int:
        value = str(value)
    # Echoed as it is, whatever blanks it has.
    return isinstance(value, str) and 0 < len(value) <= 64


def _fields(data: dict, asked: bool) -> list[bool | None]:
    size = data.get("size", 1 if asked else None)
    return [
        None if type(size) is float else type(size) is int and size >= 1 or (asked and size == 0),
        _text(data.get("policy", "silent" if asked else None), _is("standard", "silent")),
        _text(data.get("signMethod"), _is("md5")),
        _text(data.get("sign"), _SIGN.fullmatch),
        _text(data.get("firmwareVersion"), _VERSION.fullmatch),
        _url(data.get("url")),
    ]


def _url(value: object) -> bool | None:
    good = _text(value, lambda url: len(url) <= 1024 and _URL.fullmatch(url))
    return None if isinstance(value, str) and _NO_PLACE.match(value.strip()) else good


def _is(*words: str):
    return lambda text: text.lower() in words


def _text(value: object, good) -> bool | None:
    # None: with what Python takes for a blank or a letter, and MicroPython does not.
    if not isinstance(value, str):
        return False
    result = bool(good(value.strip(" \t\r\n")))
    return result if result == bool(good(value.strip())) and value.isascii() else None


def _mutation(chance: random.Random, bases: Sequence[dict]) -> bytes:
    message = json.loads(json.dumps(chance.choice(bases)))
    kinds = [chance.choice((_in_tree, _in_bytes)) for _ in range(chance.randint(1, _MOST))]
    for _ in range(kinds.count(_in_tree)):
        _in_tree(chance, message)
    data = json.dumps(message, ensure_ascii=chance.random() < 0.8)
    payload = data.encode("utf-8", "surrogatepass")
    for _ in range(kinds.count(_in_bytes)):
        payload = _in_bytes(chance, payload, bases)
    return payload


def _in_tree(chance: random.Random, message: dict) -> None:
    # A member of the message or of its data gets another value, name, neighbour, or goes.
    inner = message.get("data")
    place = inner if isinstance(inner, dict) and inner and chance.random() < 0.7 else message
    if not place:
        return
    key = chance.choice(list(place))
    what = chance.randrange(6)
    if what == 0:
        del place[key]
    elif what == 1:
        place[chance.choice((key.upper(), f" {key} ", key[:-1], "", key + "\0"))] = place.pop(key)
    elif what == 2:
        place[chance.choice(("", "x", "code", "version", " " + key))] = chance.choice(_ODD)
    elif what == 3:
        other = chance.choice(list(place))
        place[key], place[other] = place[other], place[key]
    else:
        place[key] = chance.choice(_ODD)


def _in_bytes(chance: random.Random, payload: bytes, bases: Sequence[dict]) -> bytes:
    start = chance.randrange(len(payload) + 1)
    end = min(start + chance.choice((1, 1, 2, 5, 30)), len(payload))
    what = chance.randrange(7)
    if what == 0:  # a bit
        flipped = bytes(byte ^ 1 << chance.randrange(8) for byte in payload[start : start + 1])
        return payload[:start] + flipped + payload[start + 1 :]
    if what == 1:
        return payload[:start] + payload[end:]
    if what == 2:
        return payload[:start]
    if what == 3:
        return payload[:end] + payload[start:]
    if what == 4:
        return payload[:start] + chance.randbytes(end - start) + payload[end:]
    if what == 5:  # a splice
        other = json.dumps(chance.choice(bases)).encode()
        return payload[:start] + other[chance.randrange(len(other)) :]
    return payload[:start] + chance.choice(_BYTES) + payload[start:]
