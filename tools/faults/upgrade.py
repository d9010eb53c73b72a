"""The plain case: one upgrade while something goes wrong, and a good one after it."""

import tempfile
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tools.device.supervisor import PWRON_RESET, WDT_RESET
from tools.platform.model import Task

from . import check
from .check import SUCCEEDED, need
from .scene import NEW, ROWS, SMALL, Scene
from .world import World

ROLLED_BACK = 460


@dataclass(frozen=True)
class Operation:
    """Of the flash. k: which, from 0; erase: else a program; place: label of the partition."""

    k: int
    erase: bool
    address: int
    length: int

    @property
    def place(self) -> str:
        for label, _, _, offset, size in ROWS:
            if offset <= self.address < offset + size:
                return label
        raise ValueError(f"operation {self.k} at {self.address} is in no partition")


def begin(world: World, size: int | None = SMALL, **batch) -> Task:
    """
    Power on, and an upgrade to NEW: told by the answer to the device's `get`, or pushed to a
    device that runs from ota_1.
    """
    if world.scene.slot == "ota_1":
        world.device.start()
        world.settle()
        return world.offer(NEW, size, **batch)
    task = world.offer(NEW, size, **batch)
    world.device.start()
    return task


def play(
    folder: Path,
    scene: Scene,
    fault: str,
    allowed: frozenset,
    size: int | None = SMALL,
    told: bool = True,
) -> None:
    """
    An upgrade with power cuts; it ends in one of `allowed`, and a later one succeeds. fault: see
    World; told: see check.outcome. Raises Failed, also when the last cut was not reached.
    """
    with World(folder, scene, fault) as world:
        task = begin(world, size)
        world.finish(task)
        check.outcome(world, task, allowed, told)
        last = max(int(part.split(":")[0]) for part in fault.split(","))
        need(world.device.counters["operations"] > last, "the fault was not reached", world)
        first, *later = world.record.boots
        # Who is cut off before the first start has no start that shows it.
        off = first.operations > last or PWRON_RESET in {boot.cause for boot in later}
        need(off, "the power did not go", world)
        check.follow(world)


def bite(world: World, starts: int, most_ms: int) -> None:
    """
    Time passes for a device that hangs, until its watchdog is due. starts: how many there were;
    most_ms: the longest time that it may have been set to. Raises Failed: no watchdog runs.
    """
    file = world.device.folder / "flash.bin.wdt"
    need(file.exists(), "no watchdog runs", world)
    left = int.from_bytes(file.read_bytes(), "little") - time.monotonic() * 1000
    need(0 < left <= most_ms, f"the watchdog bites in {left} ms", world)
    with file.open("r+b") as stream:
        stream.write((1).to_bytes(8, "little"))
    world.until(lambda: len(world.record.boots) > starts, "the watchdog bites")
    cause = world.record.boots[starts].cause
    need(cause == WDT_RESET, f"started by {cause}, not by the watchdog", world)


def outcomes(done: tuple[Operation, ...], *cuts: int) -> frozenset:
    """
    What an upgrade with these operations may come to when the power goes at some of them: one that
    is cut from `set_boot`'s program to the end of the confirmation may roll back.
    """
    written = next(one.k for one in done if one.place.startswith("ota_"))
    records = [one.k for one in done if one.place == "otadata" and one.k > written]
    # The first one is an erase.
    late = any(records[1] <= k <= records[-1] for k in cuts)
    return frozenset((SUCCEEDED, ROLLED_BACK) if late else (SUCCEEDED,))


@lru_cache(maxsize=32)
def operations(scene: Scene, size: int | None = SMALL, fault: str = "") -> tuple[Operation, ...]:
    """What an upgrade asks of the flash, in order, until the device is at rest."""
    fault = f"{fault},0:trace" if fault else "0:trace"
    with (
        tempfile.TemporaryDirectory() as folder,
        World(Path(folder, "device"), scene, fault) as world,
    ):
        task = begin(world, size)
        world.finish(task)
        lines = Path(f"{world.device.flash_path}.trace").read_text(encoding="ascii").splitlines()
    found = []
    for line in lines:
        k, kind, address, *length = line.split()
        found.append(
            Operation(int(k), kind == "E", int(address), int(length[0]) if length else 4096)
        )
    return tuple(found)
