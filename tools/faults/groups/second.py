"""
The power goes a second time, while the device recovers from the first cut: all pairs of operations
in boot records and NVS, the boot loader's among them; of those in the slot, a sample.
"""

import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tools.faults.case import Group
from tools.faults.check import SUCCEEDED
from tools.faults.scene import SCENES
from tools.faults.upgrade import ROLLED_BACK, Operation, operations, outcomes, play

_KINDS = ("before", "random", "after")
_DRY_RUNS = 5  # beside each other
_FEW = 12  # first cuts, for a sample
_SAMPLE = 150  # pairs with the second cut in the slot, and as many with both there
_SOON = 80  # operations from the first cut to the second

# By what a name ends with.
_ENDS = {
    "succeeds": frozenset((SUCCEEDED,)),
    "either": frozenset((SUCCEEDED, ROLLED_BACK)),
}


def _draw(*what: object) -> random.Random:
    return random.Random(" ".join(map(str, what)))


def _fault(k: int, kind: str) -> str:
    return f"{k}:random:{k}" if kind == "random" else f"{k}:{kind}"


def _first(number: int, k: int) -> str:
    # After it is before the next one.
    return _fault(k, _draw("first", number, k).choice(_KINDS[:2]))


def _name(number: int, first: int, second: int, end: str) -> str:
    kind = _draw("second", number, first, second).choice(_KINDS)
    return f"second/{number}/{first}/{second}/{kind}/{end}"


def _in_slot(operation: Operation) -> bool:
    return operation.place.startswith("ota_")


def _recovery(number: int, k: int) -> tuple[Operation, ...]:
    return operations(SCENES[number], fault=_first(number, k))


def _cases(most: int | None = None) -> list[str]:
    # most: first cuts, None = all.
    starts = [(number, one) for number, scene in enumerate(SCENES) for one in operations(scene)]
    firsts = [(number, one.k) for number, one in starts if not _in_slot(one)]
    if most:
        firsts = _draw("few").sample(firsts, most)
    with ThreadPoolExecutor(_DRY_RUNS) as pool:
        recoveries = list(pool.map(_recovery, *zip(*firsts, strict=True)))
    names, in_slot = [], []
    for (number, k), done in zip(firsts, recoveries, strict=True):
        for one in done[k + 1 :]:
            end = "either" if outcomes(done, k, one.k) == _ENDS["either"] else "succeeds"
            (in_slot if _in_slot(one) else names).append(_name(number, k, one.k, end))
    draw = _draw("slot")
    names += draw.sample(in_slot, min(_SAMPLE, len(in_slot)))
    both = draw.sample([(number, one) for number, one in starts if _in_slot(one)], _SAMPLE)
    for number, first in both:
        # What was written stays, so what the first run still had to write is what is left.
        left = sum(_in_slot(one) and one.k >= first.k for one in operations(SCENES[number]))
        second = first.k + draw.randint(1, min(left, _SOON))
        names.append(_name(number, first.k, second, "succeeds"))
    return names


def _run(name: str, folder: Path) -> None:
    _, number, first, second, kind, end = name.split("/")
    fault = f"{_first(int(number), int(first))},{_fault(int(second), kind)}"
    play(folder, SCENES[int(number)], fault, _ENDS[end])


GROUP = Group(
    "second",
    "second cut during recovery",
    _cases,
    _run,
    sample=40,
    few=partial(_cases, _FEW),
)
