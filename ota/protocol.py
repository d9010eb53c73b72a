"""
The wire: topics, messages, statuses and codes. ONE table of each; change them here to speak to
another platform.

And what a message makes the agent do (read). Never does any I/O; nothing of ours but the error is
imported with it, so that the host side (tools/) reads the same tables. A name with a leading
underscore stays out of the .mpy: MicroPython folds it in, CPython reads it. Each file of ota/
repeats the few that it needs; tests/test_codes.py holds every copy to this table. Causes and cures
in words: tools/codes.py. Source: the device end guidance, and the choices marked "ours" in
docs/protocol.md.
"""

import json

from . import OTAError

try:
    from micropython import const
except ImportError:  # CPython

    def const(value):
        return value


# Topics: _PREFIX % (productKey, identifier) + name
_PREFIX = const("/sys/%s/%s/ota/firmware/")
_UPGRADE = const("upgrade")  # platform to device, QoS 1: the command
_UPGRADE_REPLY = const("upgrade_reply")  # device to platform, QoS 1: received
_PROGRESS = const("progress")  # device to platform, QoS 0, the last one QoS 1
_VERSION = const("version")  # device to platform, QoS 1: the running version
_GET = const("get")  # device to platform, QoS 1: ask for the information of a version
_GET_REPLY = const("get_reply")  # platform to device, QoS 1: the answer

# Statuses, and the progress that stands for each.
_DOWNLOADING = const("downloading")  # 0 to 95: what is in the slot, read back
_VERIFYING = const("verifying")  # 96
_BURNING = const("burning")  # 97
_RESTARTING = const("restarting")  # 98
_SUCCEEDED = const("succeeded")  # 100
_FAILED = const("failed")  # where it stopped

# Codes
_ACCEPTED = const(200)
_LATER = const(202)
# 41x the command
_NOT_UNDERSTOOD = const(410)
_POLICY = const(411)
_SIGN_METHOD = const(412)
_BUSY = const(413)
_URL = const(414)
_FAILED_BEFORE = const(415)
_PENDING = const(416)
# 42x the image or the slot
_TOO_LARGE = const(420)
_NO_APPLICATION = const(421)
_OTHER_CHIP = const(422)
_NO_SLOT = const(423)
_COMBINED = const(424)
_DAMAGED = const(425)
# 43x the download
_NO_CONNECTION = const(430)
_HTTP_STATUS = const(431)
_STALLED = const(432)
_LENGTH = const(433)
_REDIRECT = const(434)
_NO_CA = const(435)
_MEMORY = const(436)
_TOO_SLOW = const(437)
# 44x the digest, and the manifest
_DIGEST = const(440)
_SIGNATURE = const(441)
_UNSIGNED = const(442)
_MANIFEST = const(443)
_PRODUCT = const(444)
_BOARD = const(445)
_UNFIT = const(446)
_OLDER = const(447)
_OTHER_BYTES = const(448)
_SHA256 = const(449)
# 45x the flash
_ERASE = const(450)
_WRITE = const(451)
_READ_BACK = const(452)
_SWITCH = const(453)
# 46x rolled back
_NOT_STARTED = const(460)
_SELF_TEST = const(461)
_NOT_CONNECTED = const(462)
_OTHER_VERSION = const(463)
_LATE = const(464)
# 47x cancelled
_CANCELLED = const(470)
_DESTROYED = const(471)
# 48x a call of this module; never sent
_ARGUMENT = const(480)
_STATE = const(481)
_MQTT = const(482)
# 49x TLS, of a download
_HANDSHAKE = const(490)
_EXPIRED = const(491)
_NOT_YET_VALID = const(492)
_OTHER_HOST = const(493)
_UNKNOWN_CA = const(494)
_SELF_SIGNED = const(495)

# Bounds of what a message may hold.
_MESSAGE_MAX = const(16384)  # bytes: the platform's own limit
_URL_MAX = const(1024)
_ID_MAX = const(64)
_VERSION_MAX = const(100)

# States and phases of the agent, see there.
_ASK = const(2)
_BEGIN = const(3)
_TRIAL = const(6)

_PLAIN = const("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def base(*names):
    """
    What the topics of a device begin with: str. names: product key, identifier, others to check.
    Raises OTAError 480.
    """
    for name in names:
        if not is_text(name, "._-:@", _ID_MAX):
            raise OTAError(_ARGUMENT)
    return _PREFIX % names[:2]


def decode(data):
    """
    Takes a message apart. data: bytes, at most 16 KiB.

    Returns (msgId str, "" when there is none; code, None when there is none; data: dict, or what
    stands in its place). Raises OTAError 410 when it is no JSON object or its msgId is not one.
    Source: the guidance prints keys with stray spaces, so white space goes from every key.
    """
    try:
        if len(data) <= _MESSAGE_MAX:
            message = strip(json.loads(data), {})
            msg_id = message.get("msgId", "")
            if type(msg_id) is int:
                msg_id = str(msg_id)
            if len("" + msg_id) <= _ID_MAX:
                return msg_id, message.get("code"), message.get("data")
    except Exception:  # what hostile bytes can raise is a long list
        pass
    raise OTAError(_NOT_UNDERSTOOD)


def command(msg_id, data, get):
    """
    One firmware on offer, read from the `data` of an upgrade command or of an answer to get.

    data: what decode() gave; get: bool, True where policy and size may be absent. Returns an
    object with msg_id: str; version: str; url: str, http or https; sign: str, 32 hex digits; size:
    int bytes, 0 = not told; silent: bool, the device chooses when. Raises OTAError 410 (missing,
    wrong type or range), 411 (policy), 412 (sign method), 414 (URL).
    """
    # Of a class without code: what is kept of it must not keep this file.
    found = type("", (), {})()
    try:
        data = strip(data, {"policy": "silent", "size": 0} if get else {})
        found.msg_id = msg_id
        found.size = size = data["size"]
        found.version = data["firmwareVersion"].strip()
        found.url = data["url"].strip()
        found.sign = sign = data["sign"].strip().lower()
        policy = data["policy"].strip().lower()
        method = data["signMethod"].strip().lower()
        if not (
            msg_id
            and type(size) is int
            and size >= (not get)
            and is_text(found.version, "._-", _VERSION_MAX)
            and len(sign) == 32
            and int("1" + sign, 16)  # the 1: no "0x", no "+"
        ):
            raise ValueError
    except Exception:
        raise OTAError(_NOT_UNDERSTOOD)
    found.silent = policy == "silent"
    if policy != "standard" and not found.silent:
        raise OTAError(_POLICY)
    if method != "md5":
        raise OTAError(_SIGN_METHOD)
    # A blank or a line's end in a URL would end the request line: header injection.
    if not (
        is_text(found.url, "._-~:/?#[]@!$&'()*+,;=%", _URL_MAX)
        and found.url.split("//")[0] in ("http:", "https:")
    ):
        raise OTAError(_URL)
    return found


def read(ota, data, get):
    """
    What a message makes the agent (ota) do: takes a command on or not, and answers. data:
    bytes; get: bool, an answer to get.
    """
    msg_id = ""
    try:
        msg_id, code, data = decode(data)
        if get:
            if msg_id != ota._get:
                if ota.on_info:
                    ota.on_info(msg_id, code, data)
                return
            ota._get = None
            if not data:  # 404: nothing waits for us
                return
        code = _judge(ota, command(msg_id, data, get), get, data)
    except OTAError as e:
        code = e.code
    ota._send("upgrade_reply", {}, 1, msg_id, code)


def _judge(ota, cmd, get, data):
    # Takes a command on, or not. Returns the code to answer.
    journal = ota._log
    phase = ota._phase
    if phase >= _BEGIN:
        if ota._cmd.version != cmd.version:
            return _PENDING if phase == _TRIAL else _BUSY
        if not get:  # so that a copy of it will not be new
            ota._cmd.msg_id = cmd.msg_id
        return _ACCEPTED
    if journal.code and (cmd.msg_id == journal.msg_id or get and cmd.sign == journal.sign):
        return _FAILED_BEFORE
    if ota.trust:
        ota.trust.check(ota, cmd, data)
    ota._cmd = cmd
    if cmd.sign == ota._kept:
        if get:
            cmd.msg_id = journal.msg_id
    else:
        ota._kept = None
        if cmd.silent and cmd.version != ota.version:
            from .stream import after  # here: the host has none

            ota._phase = _ASK
            ota.due = after(0)
            return _LATER
    ota._phase = _BEGIN
    return _ACCEPTED


def is_text(value, sep, size):
    """True for a str of 1 to size characters of A-Z a-z 0-9 and those in sep."""
    # Not character by character: MicroPython keeps each one that it met, for ever.
    return isinstance(value, str) and 0 < len(value) <= size and not value.strip(_PLAIN + sep)


def strip(data, copy):
    # A dict with the white space gone from its keys, over copy; TypeError or AttributeError for
    # what is no dict.
    for key in data.keys():
        copy[key.strip()] = data[key]
    return copy
