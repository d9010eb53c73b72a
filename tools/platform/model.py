"""
What the platform knows, as plain records, and the console's words for it. No I/O, no clock.

Times are seconds since 1970 (float), so that they survive a restart of the platform.
Source of words and limits: docs/protocol.md, "What the platform makes of it".
"""

import hmac
import re
from dataclasses import dataclass

# Statuses of a device in a batch.
TO_BE_PUSHED = "To be Pushed"
PUSHED = "Pushed"
TO_BE_UPGRADED = "To be Upgraded"
UPGRADING = "Upgrading"
TO_BE_RETRIED = "To be Retried"
SUCCEEDED = "Succeeded"
FAILED = "Failed"
STATUSES = (TO_BE_PUSHED, PUSHED, TO_BE_UPGRADED, UPGRADING, TO_BE_RETRIED, SUCCEEDED, FAILED)
AT_REST = (SUCCEEDED, FAILED)

# States of a batch.
IN_PROGRESS = "In Progress"
COMPLETED = "Completed"
ABORTED = "Aborted"

# Remarks of a failure.
PUSH_FAILED = "Push Failed"
DOWNLOAD_FAILED = "Download Firmware Failed"
VERIFICATION_FAILED = "Firmware Verification Failed"
BURN_FAILED = "Firmware Burn Failed"
TIME_OUT = "Firmware Upgrade Time-out"
TASK_ABORTED = "Task Aborted"

# Why a push fails that no code tells of.
NO_REPLY = "it did not answer in time. It gets the command when it comes back and asks"

POLICIES = ("standard", "silent")

# Limits.
RETRIES_MAX = 5
INTERVAL_MAX_S = 4320 * 60
VALID_MAX_S = 7 * 86400
FILE_MAX = 100 * 1024 * 1024  # bytes
FILES_MAX = 50  # for each product
NAME_MAX = 50  # characters
SUFFIXES = (".bin", ".rom", ".zip", ".gz", ".tar", ".tar.gz", ".app-bin")  # the last is ours

_ID = re.compile(r"[A-Za-z0-9_.:@-]{1,64}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

Key = tuple[str, str]  # product key, identifier: what names a device


class PlatformError(Exception):
    """Bad input, in one sentence for the person who gave it. Not for our own mistakes."""


class NotFound(PlatformError):
    """What was named is not there."""


@dataclass
class Product:
    """
    key: as in the topics; name: for people; signed: its devices take signed firmware alone, so
    nothing else is published for it.
    """

    key: str
    name: str
    signed: bool = False


@dataclass
class Device:
    """
    version: as last reported, "" = never; seen: time of its last message, None = never (inactive).
    """

    product: str
    identifier: str
    secret: str
    name: str
    version: str = ""
    seen: float | None = None

    @property
    def key(self) -> Key:
        return self.product, self.identifier


@dataclass
class Firmware:
    """
    file: its name, as uploaded; size: bytes; sign: MD5 of the file as it is, hex; manifest,
    signature: as in a command, "" = not signed; sequence: that of the manifest; removed: the file
    is gone, what was done with it is not.
    """

    id: int
    product: str
    name: str
    version: str
    file: str
    size: int
    sign: str
    uploaded: float
    manifest: str = ""
    signature: str = ""
    sequence: int = 0
    removed: bool = False


@dataclass
class Batch:
    """
    One upgrade of one or many devices.

    timeout_s: of a device, from its first progress on; interval_s: before a retry; ends: time when
    its validity ends; token: makes the msgIds of this batch differ from all others, also from
    those of a data base since deleted. aborted: no device is Pushed any more; why: the reason, ""
    = an operator did it. shares, failures, wave: of a gradual roll-out, see rollout.py.
    """

    id: int
    firmware: int
    policy: str
    timeout_s: float
    retries: int
    interval_s: float
    created: float
    ends: float
    token: str
    aborted: bool = False
    why: str = ""
    shares: str = "100"
    failures: int = 100
    wave: int = 0


@dataclass
class Task:
    """
    One device in a batch.

    attempt: retries so far; due: when the present wait ends (reply, time-out, retry), None = at
    rest; asked: msgId of the `get` that brought the command, "" = none; outcome: msgId and code of
    the last failure counted; wave: of a gradual roll-out.
    """

    batch: int
    product: str
    identifier: str
    status: str = TO_BE_PUSHED
    progress: int = 0
    remark: str = ""
    code: int | None = None
    message: str = ""
    attempt: int = 0
    due: float | None = None
    asked: str = ""
    outcome: str = ""
    wave: int = 0

    @property
    def key(self) -> Key:
        return self.product, self.identifier

    @property
    def at_rest(self) -> bool:
        return self.status in AT_REST


@dataclass
class Operator:
    """Who may use the console. password: its hash, as pwdlib writes it."""

    name: str
    password: str


@dataclass
class Session:
    """
    A browser that has the console open. id: SHA-256 of the cookie; operator: "" = not logged in
    yet; csrf: what its forms must carry; ends: time.
    """

    id: str
    operator: str
    csrf: str
    ends: float


@dataclass
class Token:
    """A program that may use the API. digest: SHA-256 of the token."""

    name: str
    digest: str
    created: float


def state(batch: Batch, at_rest: bool) -> str:
    """
    In Progress, Completed or Aborted. at_rest: all its devices are; of an aborted batch some may
    still run.
    """
    if batch.aborted:
        return ABORTED
    return COMPLETED if at_rest else IN_PROGRESS


def same(one: str, other: str) -> bool:
    """Compares secrets in a time that does not tell how much of them fits."""
    both = (text.encode(errors="surrogatepass") for text in (one, other))
    return hmac.compare_digest(*both)


def id_or_name(text: str) -> int | str:
    """Which firmware is meant: none is called by digits alone."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else text


def check_id(value: str, what: str) -> str:
    """
    A product key or an identifier: it stands between slashes in topics. Raises PlatformError.
    """
    if not _ID.fullmatch(value) or not value.strip("."):  # . and .. are no names in a URL
        raise PlatformError(f"{what} {value!r}: 1 to 64 of A-Z a-z 0-9 . _ - : @ are possible")
    return value


def check_file(name: str) -> str:
    """The name of a firmware file: it stands in a URL. Raises PlatformError."""
    if not _FILE.fullmatch(name):
        raise PlatformError(f"file name {name!r}: 1 to 100 of A-Z a-z 0-9 _ . -, and no . first")
    if not name.lower().endswith(SUFFIXES):
        raise PlatformError(f"file {name!r}: a firmware file ends in {', '.join(SUFFIXES)}")
    return name


def check_name(name: str, what: str) -> str:
    """For people; may be anything that is seen. Raises PlatformError."""
    if not 1 <= len(name) <= NAME_MAX or not name.isprintable():
        raise PlatformError(f"{what} {name!r}: 1 to {NAME_MAX} characters are possible")
    return name


def check_batch(policy: str, timeout_s: float, retries: int, interval_s: float, valid_s: float):
    """The settings of a batch, in seconds. Raises PlatformError."""
    if policy not in POLICIES:
        raise PlatformError(f"policy {policy!r}: it is {' or '.join(POLICIES)}")
    if not 0 <= retries <= RETRIES_MAX:
        raise PlatformError(f"{retries} retries: 0 to {RETRIES_MAX} are possible")
    for what, value, most in (
        ("device time-out", timeout_s, VALID_MAX_S),
        ("interval", interval_s, INTERVAL_MAX_S),
        ("validity", valid_s, VALID_MAX_S),
    ):
        if not 0 < value <= most:
            raise PlatformError(
                f"{what} of {value:g} s: more than 0, at most {most} s are possible"
            )
