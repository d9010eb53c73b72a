"""Plays cases in processes beside each other, and gathers what came of them."""

import itertools
import random
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from tools.faults.case import Group
from tools.faults.groups import GROUPS

WORKERS = 14  # for two cores: a case mostly waits
_AHEAD = 4  # cases that are handed out to each worker
_SCRATCH = Path("/dev/shm")  # memory: a flash file is written a byte at a time


@dataclass
class Result:
    """Of one case. tried: things in it; why: "" = it survived."""

    name: str
    tried: int
    why: str
    seconds: float


def group_of(name: str) -> Group:
    """Raises KeyError: there is none of that name."""
    return GROUPS[name.split("/", 1)[0]]


def play(name: str) -> Result:
    """Plays one case, in this process."""
    began = time.monotonic()
    tried, why = 1, ""
    scratch = _SCRATCH if _SCRATCH.is_dir() else None
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            tried = group_of(name).run(name, Path(folder, "device")) or 1
    except Exception:  # whatever it is: the case did not survive
        why = traceback.format_exc()
    return Result(name, tried, why, time.monotonic() - began)


def names_of(key: str, sample: bool = False) -> list[str]:
    """Names of all cases of a group, or of those that a sample is drawn from."""
    group = GROUPS[key]
    return list(group.few() if sample and group.few else group.cases())


def chosen(names: list[str], count: int, seed: int) -> list[str]:
    """A sample of them, the same for the same seed."""
    if count >= len(names):
        return names
    return random.Random(f"{seed} {names[0]}").sample(names, count)


def run(keys: list[str], sample: bool, seed: int, on_result: Callable[[Result], None]) -> None:
    """
    Plays the groups of these keys, all their cases or a sample, in an order drawn by seed, so that
    cases that wait and cases that work lie beside each other.
    """
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        names: list[str] = []
        naming = pool.map(names_of, keys, [sample] * len(keys))
        for key, found in zip(keys, naming, strict=True):
            group = GROUPS[key]
            count = group.sample if sample else len(found)
            names += chosen(found, count, seed)
        random.Random(seed).shuffle(names)
        for result in _played(pool, names):
            on_result(result)


def play_all(names: list[str], on_result: Callable[[Result], None]) -> None:
    """Plays these cases, beside each other."""
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        for result in _played(pool, names):
            on_result(result)


def _played(pool: ProcessPoolExecutor, names: list[str]) -> Iterator[Result]:
    # Not all at once: an interrupt should not have to wait for thousands.
    coming = iter(names)
    pending = {pool.submit(play, name) for name in itertools.islice(coming, WORKERS * _AHEAD)}
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()
            for name in coming:
                pending.add(pool.submit(play, name))
                break
