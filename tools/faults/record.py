"""What happened in a case: starts, messages, the heap at rest."""

from dataclasses import dataclass, field


@dataclass
class Boot:
    """
    A start. label: of the slot, None = no boot; cause: of the reset; version: whose approved image
    lies there byte for byte, None = none; slots: SHA-256 of each slot, whole; operations: of the
    flash, until then.
    """

    label: str | None
    cause: int
    version: str | None
    slots: dict[str, bytes]
    operations: int


@dataclass
class Heard:
    """A message of the device. boots: how many starts there had been."""

    name: str
    msg_id: str
    code: int | None
    data: dict
    boots: int


@dataclass
class Record:
    """
    What happened. idles: heap in use, bytes, each time that the device was at rest; malformed:
    what it said that is no message; events: counts all; last_idle, last_heard: the count then.
    """

    boots: list[Boot] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    idles: list[int] = field(default_factory=list)
    malformed: list[bytes] = field(default_factory=list)
    events: int = 0
    last_idle: int = 0
    last_heard: int = 0
