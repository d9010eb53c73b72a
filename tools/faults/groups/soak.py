"""
So many upgrades in a row on one device, each one told once; the heap at rest does not grow, and
each sector of the slot is erased once at most: what is there already stays.
"""

from collections import Counter, defaultdict
from pathlib import Path

from tools.faults import check
from tools.faults.case import Group
from tools.faults.check import SUCCEEDED, need
from tools.faults.scene import LATER, NEW, PLACES, ROWS
from tools.faults.world import World

_SECTOR = 4096
_VERSIONS = ("1.3.0", NEW, LATER)  # in turns
_SAME = 160  # bytes: five blocks of heap, for numbers of other lengths
_GROWN = 256  # bytes of heap from the first tenth of the upgrades to the last one
# Erases for each upgrade: four of boot records (the one that named the slot, set_boot, the boot
# loader's, the confirmation), of NVS a part of a page for each record of the journal.
_WORN = {"otadata": 4, "nvs": 1}


def _run(name: str, folder: Path) -> int:
    upgrades = int(name.split("/")[1])
    heaps = defaultdict(list)  # by slot that runs: bytes in use at rest, after each upgrade
    worn = Counter()  # by partition: erases
    with World(folder, fault="0:trace") as world:
        world.device.start()
        world.settle()
        erases = _Erases(Path(f"{world.device.flash_path}.trace"))
        erases.new()
        for number in range(upgrades):
            heard = len(world.record.heard)
            task = world.offer(_VERSIONS[number % len(_VERSIONS)])
            world.finish(task)
            check.outcome(world, task, {SUCCEEDED})
            told = [h for h in world.record.heard[heard:] if h.data.get("status") == "succeeded"]
            need(len(told) == 1, f"upgrade {number} was told as {told}", world)
            need(len(world.record.boots) == number + 2, "more than one restart", world)
            slot = world.device.running
            heaps[slot].append(world.record.idles[-1])
            size = len(world.approved[world.backend.version_of(task)])
            erased = erases.new()
            written = Counter(range(PLACES[slot], PLACES[slot] + size, _SECTOR))
            in_slots = Counter({at: n for at, n in erased.items() if at >= PLACES["ota_0"]})
            need(in_slots and in_slots <= written, f"upgrade {number} erased {in_slots}", world)
            for at, count in (erased - in_slots).items():
                worn[_label(at)] += count
        check.end(world)
        for label, most in _WORN.items():
            need(worn[label] <= most * upgrades, f"{label} wears out: {worn}", world)
        for slot, used in heaps.items():
            tenth = -(-len(used) // 10)
            grown = max(used[-tenth:]) - max(used[:tenth])
            need(grown <= _GROWN, f"heap, {slot}: {used}", world)
            # Behind the first one, which finds no record of an upgrade.
            need(max(used[1:]) - min(used[1:]) <= _SAME, f"heap, {slot}: {used}", world)
    return upgrades


def _label(address: int) -> str:
    return max((row for row in ROWS if row[3] <= address), key=lambda row: row[3])[0]


class _Erases:
    """path: of the trace, see docs/simulator.md."""

    def __init__(self, path: Path):
        self._path = path
        self._at = 0

    def new(self) -> Counter:
        """Erases since the last call, by address."""
        with self._path.open("rb") as file:
            file.seek(self._at)
            lines = file.readlines()
            self._at = file.tell()
        found = (line.split() for line in lines)
        return Counter(int(parts[2]) for parts in found if parts[1] == b"E")


GROUP = Group(
    "soak", "upgrades in a row", lambda: ["soak/1000"], _run, sample=1, few=lambda: ["soak/20"]
)
