"""
What has to be true at the end of the demo, and whether it is. Pure: facts in, sentences out.
"""

from dataclasses import dataclass
from typing import NamedTuple

from tools.platform.engine import Row
from tools.platform.files import Access
from tools.platform.model import BURN_FAILED, FAILED, SUCCEEDED

OLD, GOOD, BROKEN = "1.0.0", "1.1.0", "1.2.0"
# The three devices; CUT loses power and network, TRIED gets the broken firmware.
PLAIN, CUT, TRIED = DEVICES = ("kitchen", "cellar", "garden")
SELF_TEST_FAILED = 461

# The slots that each device started from, in turn.
_STARTS = {
    PLAIN: ["ota_0", "ota_1"],
    CUT: ["ota_0", "ota_0", "ota_1"],
    TRIED: ["ota_0", "ota_1", "ota_0", "ota_1"],
}


@dataclass
class Seen:
    """
    One device at the end. version: as the platform has it; slot: label of the one that runs;
    confirmed: its boot record is VALID; intact: the slot holds the file of GOOD, byte for byte;
    starts: slots that it started from; counters: of its flash.
    """

    version: str
    slot: str | None
    confirmed: bool
    intact: bool
    starts: list[str | None]
    counters: dict[str, int]


@dataclass
class Facts:
    """
    before: versions at the beginning; good, broken: the console's rows of both upgrades; log: the
    file server's; paths: of the URLs of GOOD and of BROKEN; size: of each
    file, bytes; devices: by name.
    """

    before: list[str]
    good: list[Row]
    broken: list[Row]
    log: list[Access]
    paths: list[str]
    size: int
    devices: dict[str, Seen]


class Check(NamedTuple):
    """One sentence, and whether it is true."""

    text: str
    true: bool


def judge(facts: Facts) -> list[Check]:
    """All that was promised, also when some of it did not come about."""
    seen = facts.devices
    fetched, broken = (_requests(facts, which) for which in (0, 1))
    cut = [access for access in fetched if access.sent < access.length]
    resumed = [access for access in fetched if access.range]
    return [
        Check(
            f"three devices went from {OLD} to {GOOD}",
            facts.before == [OLD] * len(DEVICES)
            and sorted((row.device, row.status, row.version) for row in facts.good)
            == sorted((name, SUCCEEDED, GOOD) for name in DEVICES),
        ),
        Check(
            f"{CUT} resumed its download by Range, {_places(resumed)}",
            len(fetched) == len(DEVICES) + 1
            and len(cut) == len(resumed) == 1
            and _goes_on(cut[0], resumed[0], facts.size),
        ),
        Check(
            f"{TRIED} rolled back from {BROKEN}: {BURN_FAILED}, code {SELF_TEST_FAILED}",
            [(row.device, row.status, row.remark, row.code) for row in facts.broken]
            == [(TRIED, FAILED, BURN_FAILED, SELF_TEST_FAILED)]
            and len(broken) == 1,
        ),
        Check(
            f"{BROKEN} was started once, {GOOD} once more after it; the others never saw it",
            {name: device.starts for name, device in seen.items()} == _STARTS,
        ),
        Check(
            f"all run {GOOD} now, from a slot that is confirmed",
            _every(seen, lambda device: device.version == GOOD)
            and _every(seen, lambda device: device.slot == "ota_1" and device.confirmed),
        ),
        Check(
            f"all {facts.size:,} bytes of that slot are those of the file",
            _every(seen, lambda device: device.intact),
        ),
        Check(
            f"0 flash violations in {sum(d.counters['operations'] for d in seen.values()):,} "
            "operations",
            _every(
                seen,
                lambda device: (
                    device.counters["operations"] > 0
                    and device.counters["violations"] == device.counters["aborts"] == 0
                ),
            ),
        ),
    ]


def _requests(facts: Facts, which: int) -> list[Access]:
    """What was asked for: 0 = GOOD, 1 = BROKEN."""
    return [access for access in facts.log if access.path == facts.paths[which]]


def _goes_on(cut: Access, resumed: Access, size: int) -> bool:
    """From a byte that had come before, to the end; and the server took it for what it is."""
    return (
        resumed.status == 206
        and 0 < resumed.start <= cut.sent
        and resumed.range == f"bytes={resumed.start}-"
        and resumed.sent == size - resumed.start
    )


def _places(resumed: list[Access]) -> str:
    return (
        "at byte " + ", ".join(f"{access.start:,}" for access in resumed) if resumed else "never"
    )


def _every(devices: dict[str, Seen], condition) -> bool:
    return sorted(devices) == sorted(DEVICES) and all(map(condition, devices.values()))
