"""
Messages that no platform should send, made by hand, and what a device may answer to each.

Source: docs/protocol.md, "Messages" and the codes there; RFC 8259 for what is JSON.
"""

import json

from .fuzz import MESSAGE_MAX, OWN_ID, good

_DEEP = 10_000
_TAKEN = frozenset((200,))
_NOT_UNDERSTOOD, _POLICY, _METHOD, _URL = ({code} for code in (410, 411, 412, 414))
_SIGN = "0123456789abcdef0123456789abcde"  # 31 digits


def _text(**data) -> bytes:
    return json.dumps(good(**data)).encode()


def _with(old: str, new: bytes) -> bytes:
    # A good command's text with a piece replaced.
    assert old.encode() in _text()
    return _text().replace(old.encode(), new)


def _without(key: str) -> bytes:
    return _text(**{key: None})


def _whole(**members) -> bytes:
    return json.dumps(good() | members).encode()


# Name to payload, and codes of which the reply has one.
HAND: dict[str, tuple[bytes, set]] = {
    "empty": (b"", _NOT_UNDERSTOOD),
    "blank": (b" ", _NOT_UNDERSTOOD),
    "no-json": (b"upgrade now", _NOT_UNDERSTOOD),
    "null": (b"null", _NOT_UNDERSTOOD),
    "true": (b"true", _NOT_UNDERSTOOD),
    "number": (b"7", _NOT_UNDERSTOOD),
    "text": (b'"upgrade"', _NOT_UNDERSTOOD),
    "list": (b"[" + _text() + b"]", _NOT_UNDERSTOOD),
    "object-empty": (b"{}", _NOT_UNDERSTOOD),
    "cut": (_text()[:-40], _NOT_UNDERSTOOD),
    "text-open": (_text()[: -len('5"}}')], _NOT_UNDERSTOOD),
    "deep-lists": (b"[" * _DEEP, _NOT_UNDERSTOOD),
    "deep-objects": (b'{"a":' * 2000, _NOT_UNDERSTOOD),
    "deep-in-data": (_with("70000", b"[" * _DEEP + b"]" * 5000), _NOT_UNDERSTOOD),
    "deep-extra-key": (_with('"size"', b'"x": ' + b"[" * 90 + b"]" * 90 + b', "size"'), _TAKEN),
    "digits-5000": (_with("70000", b"9" * 5000), _TAKEN | _NOT_UNDERSTOOD),
    "exponent": (_with("70000", b"1e999999"), _NOT_UNDERSTOOD),
    "nan": (_with("70000", b"NaN"), _NOT_UNDERSTOOD),
    "infinity": (_with("70000", b"-Infinity"), _NOT_UNDERSTOOD),
    "key-twice": (_with('"size"', b'"size": "x", "size"'), _TAKEN | _NOT_UNDERSTOOD),
    "nul-inside": (_with("9.9.9", b"9.9\0.9"), _NOT_UNDERSTOOD),
    "nul-escaped": (_with('"9.9.9"', b'"9.9\\u00009"'), _NOT_UNDERSTOOD),
    "nuls-only": (bytes(200), _NOT_UNDERSTOOD),
    "not-utf-8": (_with('"9.9.9"', b'"9.9\xff\xfe9"'), _NOT_UNDERSTOOD),
    "utf-8-cut": (_with('"9.9.9"', b'"9.9\xe2\x82"'), _NOT_UNDERSTOOD),
    "not-utf-8-extra": (_with('"size"', b'"x": "\xff\xc3", "size"'), _TAKEN | _NOT_UNDERSTOOD),
    "utf-16": (_text().decode().encode("utf-16"), _NOT_UNDERSTOOD),
    "mark": (b"\xef\xbb\xbf" + _text(), _TAKEN | _NOT_UNDERSTOOD),
    "too-long": (_text().ljust(MESSAGE_MAX + 1), _NOT_UNDERSTOOD),
    "data-missing": (json.dumps({"msgId": OWN_ID, "version": "1.0"}).encode(), _NOT_UNDERSTOOD),
    "data-null": (_whole(data=None), _NOT_UNDERSTOOD),
    "data-list": (_whole(data=[1, 2]), _NOT_UNDERSTOOD),
    "data-text": (_whole(data=_text().decode()), _NOT_UNDERSTOOD),
    "data-empty": (_whole(data={}), _NOT_UNDERSTOOD),
    "id-missing": (json.dumps({"data": good()["data"]}).encode(), _NOT_UNDERSTOOD),
    "id-empty": (_whole(msgId=""), _NOT_UNDERSTOOD),
    "id-64": (_whole(msgId="x" * 64), _TAKEN),
    "id-65": (_whole(msgId="x" * 65), _NOT_UNDERSTOOD),
    "id-number": (_whole(msgId=12), _TAKEN),
    "id-negative": (_whole(msgId=-7), _TAKEN),
    "id-huge": (_whole(msgId=10**70), _NOT_UNDERSTOOD),
    "id-float": (_whole(msgId=1.5), _TAKEN | _NOT_UNDERSTOOD),
    "id-null": (_whole(msgId=None), _NOT_UNDERSTOOD),
    "id-true": (_whole(msgId=True), _NOT_UNDERSTOOD),
    "id-list": (_whole(msgId=["x"]), _NOT_UNDERSTOOD),
    "id-unicode": (_whole(msgId="\u00e4\u20ac\U0001f600"), _TAKEN),
    "id-quote": (_whole(msgId='"},{\\'), _TAKEN),
    "id-newline": (_whole(msgId="a\r\nb\0c\x1f"), _TAKEN),
    "id-surrogate": (_whole(msgId="\ud800"), _TAKEN | _NOT_UNDERSTOOD),
    "size-0": (_text(size=0), _NOT_UNDERSTOOD),
    "size-negative": (_text(size=-1), _NOT_UNDERSTOOD),
    "size-2-31": (_text(size=2**31), _TAKEN),
    "size-2-64": (_text(size=2**64), _TAKEN),
    "size-float": (_text(size=1e9), _NOT_UNDERSTOOD),
    "size-true": (_text(size=True), _NOT_UNDERSTOOD),
    "size-text": (_text(size="12"), _NOT_UNDERSTOOD),
    "size-missing": (_without("size"), _NOT_UNDERSTOOD),
    "policy-now": (_text(policy="now"), _POLICY),
    "policy-number": (_text(policy=1), _NOT_UNDERSTOOD | _POLICY),
    "policy-missing": (_without("policy"), _NOT_UNDERSTOOD | _POLICY),
    "policy-capitals": (_text(policy=" STANDARD "), _TAKEN),
    "method-sha256": (_text(signMethod="sha256"), _METHOD),
    "method-list": (_text(signMethod=["Md5"]), _NOT_UNDERSTOOD | _METHOD),
    "method-capitals": (_text(signMethod="MD5 "), _TAKEN),
    "sign-31": (_text(sign=_SIGN), _NOT_UNDERSTOOD),
    "sign-33": (_text(sign=_SIGN + "01"), _NOT_UNDERSTOOD),
    "sign-capitals": (_text(sign=_SIGN.upper() + "F"), _TAKEN),
    "sign-not-hex": (_text(sign=_SIGN + "g"), _NOT_UNDERSTOOD),
    "sign-0x": (_text(sign="0x" + _SIGN[:30]), _NOT_UNDERSTOOD),
    "sign-underscores": (_text(sign=_SIGN[:15] + "_" + _SIGN[16:] + "1"), _NOT_UNDERSTOOD),
    "sign-inner-blank": (_text(sign=_SIGN[:15] + " " + _SIGN[16:] + "1"), _NOT_UNDERSTOOD),
    "version-empty": (_text(firmwareVersion=""), _NOT_UNDERSTOOD),
    "version-100": (_text(firmwareVersion="9" * 100), _TAKEN),
    "version-101": (_text(firmwareVersion="9" * 101), _NOT_UNDERSTOOD),
    "version-slash": (_text(firmwareVersion="../9"), _NOT_UNDERSTOOD),
    "version-unicode": (_text(firmwareVersion="\u0661.\u00e9"), _NOT_UNDERSTOOD),
    "version-number": (_text(firmwareVersion=9.9), _NOT_UNDERSTOOD),
    "url-file": (_text(url="file:///flash/boot.py"), _URL),
    "url-ftp": (_text(url="ftp://127.0.0.1/x.bin"), _URL),
    "url-javascript": (_text(url="javascript:alert(1)"), _URL),
    "url-relative": (_text(url="/x.bin"), _URL),
    "url-empty": (_text(url=""), _URL),
    "url-scheme-alone": (_text(url="http:"), _URL | _TAKEN),
    "url-no-host": (_text(url="http://"), _URL | _TAKEN),
    "url-host-empty": (_text(url="http:///x.bin"), _URL | _TAKEN),
    "url-port-alone": (_text(url="http://:9/x.bin"), _URL | _TAKEN),
    "url-port-0": (_text(url="http://127.0.0.1:0/x.bin"), _URL | _TAKEN),
    "url-port-99999": (_text(url="http://127.0.0.1:99999/x.bin"), _URL | _TAKEN),
    "url-port-text": (_text(url="http://127.0.0.1:http/x.bin"), _URL | _TAKEN),
    "url-port-unending": (_text(url="http://127.0.0.1:" + "9" * 900), _URL | _TAKEN),
    "url-login": (_text(url="http://user:secret@127.0.0.1:9/x.bin"), _URL | _TAKEN),
    "url-https": (_text(url="https://127.0.0.1:9/x.bin"), _TAKEN),
    "url-line-end": (_text(url="http://127.0.0.1:9/x HTTP/1.0\r\nX: y"), _URL),
    "url-blank": (_text(url="http://127.0.0.1:9/x y"), _URL),
    "url-unicode": (_text(url="http://127.0.0.1:9/\u00e4"), _URL),
    "url-1024": (_text(url="http://127.0.0.1:9/".ljust(1024, "x")), _TAKEN),
    "url-1025": (_text(url="http://127.0.0.1:9/".ljust(1025, "x")), _URL),
    "url-2000": (_text(url="http://127.0.0.1:9/".ljust(2000, "x")), _URL),
    "url-number": (_text(url=9), _NOT_UNDERSTOOD | _URL),
    "keys-extra": (_whole(code=200, message=None, more={"data": [1]}), _TAKEN),
    "keys-spaced": (_with('"size"', b'" size "').replace(b'"data"', b'"data "'), _TAKEN),
    "keys-empty": (_with('"size"', b'"": 0, "size"'), _TAKEN),
    "text-after-it": (_text() + b"}} trailing", _TAKEN | _NOT_UNDERSTOOD),
    "twice-in-one": (_text() * 2, _TAKEN | _NOT_UNDERSTOOD),
}
