"""
A gradual roll-out: a share of the devices first, then the next, while failures stay few.

Pure. A batch has `shares`, percent of its devices, added up ("5,25,100"), each of which is a wave;
`wave` is the last one that is open. The next one opens by itself when all devices of the open ones
are at rest; when more than `failures` percent of the open devices have Failed, no wave opens any
more, and the batch is Aborted. Source: none, the protocol leaves it to the platform (ours).
"""

import hashlib
from dataclasses import dataclass

from tools.platform.model import Batch, PlatformError

SHARES_MAX = 10

# What decide() says.
STAY, NEXT, STOP = "stay", "next", "stop"


@dataclass
class Counts:
    """
    Devices of the open waves. failed: those that could not do it; a device that never answered is
    away, which says nothing about the firmware. left: devices of the whole batch that are not at
    rest.
    """

    open: int
    at_rest: int
    failed: int
    left: int


def check(shares: str, failures: int):
    """The settings of a batch. Raises PlatformError."""
    try:
        numbers = read(shares)
    except ValueError:
        numbers = []
    rising = all(one < other for one, other in zip([0, *numbers], numbers, strict=False))
    if not (0 < len(numbers) <= SHARES_MAX and rising and numbers[-1] == 100):
        raise PlatformError(
            f"shares {shares!r}: they rise and end with 100, like 5,25,100; at most {SHARES_MAX}"
        )
    if not 0 <= failures <= 100:
        raise PlatformError(f"failures of {failures} %: 0 to 100 are possible")


def read(shares: str) -> list[int]:
    """Raises ValueError."""
    return [int(share) for share in shares.split(",")]


def waves(batch: Batch, identifiers: list[str]) -> dict[str, int]:
    """
    The wave of each device. By a hash, so that a wave is a fair sample, and another one in each
    batch.
    """
    by_hash = sorted(
        identifiers,
        key=lambda name: hashlib.sha256(f"{batch.token} {name}".encode()).digest(),
    )
    found, begin = {}, 0
    for wave, share in enumerate(read(batch.shares)):
        end = -(
            -len(by_hash) * share // 100
        )  # rounded up, so that each wave that can has a device
        found.update(dict.fromkeys(by_hash[begin:end], wave))
        begin = end
    return found


def rolls(batch: Batch) -> bool:
    """True while there is something to decide."""
    return not batch.aborted and (batch.failures < 100 or batch.wave < last(batch))


def last(batch: Batch) -> int:
    """The number of its last wave."""
    return batch.shares.count(",")


def decide(batch: Batch, counts: Counts) -> str:
    """STAY, NEXT or STOP. Where nothing is left to be stopped, the batch is Completed."""
    if not counts.left:
        return STAY
    if counts.failed * 100 > batch.failures * counts.open:
        return STOP
    if counts.at_rest == counts.open and batch.wave < last(batch):
        return NEXT
    return STAY
