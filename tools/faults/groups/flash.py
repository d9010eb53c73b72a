"""
Flash that fails: operations that raise an error or silently do nothing, bits that stick, reads
that err; in the slot, and at every operation on boot records and NVS.
"""

import random
import struct
from pathlib import Path

from tools.faults import check
from tools.faults.case import Group
from tools.faults.check import SUCCEEDED, need
from tools.faults.scene import LATER, NEW, PLACES, ROWS, SCENES, SMALL, UNITS, Scene, image
from tools.faults.upgrade import ROLLED_BACK, Operation, begin, operations
from tools.faults.world import World

_KINDS = ("error", "skip", "stuck", "flip", "unread")
_NUMBERED = ("stuck", "flip")  # by the bit
_NO_SLOT, _ERASE, _WRITE, _READ_BACK, _SWITCH = 423, 450, 451, 452, 453

_BLOCK, _PAGE = 4096, 256  # bytes
_RECORD_BITS = 256
_STATE_BITS = (192, 193)  # of a record: what tells its states from each other
_PAGES = (0, 7, 15)  # of a block: those whose programs fail

# What a failure of a boot record may come to; where nothing was hurt, or the second attempt did
# it, the upgrade succeeds. A stuck bit shows at any of its writes.
_ANY = frozenset((SUCCEEDED, _SWITCH, ROLLED_BACK))
# By whose write it is, in the order of an upgrade: set_boot, the boot loader before the trial, the
# confirmation.
_RECORDS = ({SUCCEEDED, _SWITCH}, {SUCCEEDED, ROLLED_BACK}, _ANY)


# Reads that fail once: which start, whose partition, the number of its read in that start; the end
# of the upgrade. In the slot: the block read back, the head for the journal, `set_boot`'s check;
# then what is there already, after a cut.
_READS = (
    [("0", "otadata", n) for n in range(8)]
    + [("0", "running", n) for n in range(2)]
    + [("0", "slot", n) for n in (0, 20, 39, 40, 41)]
    + [("1", "otadata", n) for n in range(4)]
    + [("1", "running", 0)]
    + [("resumed", "slot", n) for n in (0, 8, 15)]
)
_READ_KINDS = ("unread", "flip")
_READ_ENDS = frozenset((SUCCEEDED, _NO_SLOT, _READ_BACK, _SWITCH, ROLLED_BACK))

# For boot.py: in start START, read NUMBER (from 0, behind boot.py) between LOW and HIGH fails.
_HOOK = """
START, LOW, HIGH, NUMBER, KIND = %r
import esp32, os
starts = len([name for name in os.listdir() if name.startswith("start")])
open("start%%d" %% starts, "w").close()
if starts == START:
    flash = esp32.Partition.chip.flash
    read = flash.readinto
    left = [NUMBER]

    def readinto(address, buf):
        if LOW <= address < HIGH:
            left[0] -= 1
            if left[0] == -1:
                open("failed", "w").close()
                if KIND == "unread":
                    raise OSError(-24577)
                read(address, buf)
                buf[0] ^= 1
                return
        read(address, buf)

    flash.readinto = readinto
"""


def _faults(number: int, one: Operation) -> list[str]:
    # The bit of a boot record's erase is one of the record.
    record = one.place == "otadata"
    draw = random.Random(f"{number} {one.k}").randrange
    bits = _RECORD_BITS if record else one.length * 8
    faults = [f"{kind}:{draw(bits)}" if kind in _NUMBERED else kind for kind in _KINDS]
    if record and not one.erase:
        faults += [f"stuck:{bit}" for bit in _STATE_BITS]
    return faults


def _chosen(scene: Scene) -> list[Operation]:
    done = operations(scene)
    blocks = [one for one in done if one.place == scene.other and one.erase]
    chosen = [one for one in done if one.place != scene.other]
    for erase in (blocks[0], blocks[len(blocks) // 2], blocks[-1]):
        chosen += [erase, *(done[erase.k + 1 + page] for page in _PAGES)]
    return chosen


def _cases() -> list[str]:
    operations_fail = [
        f"flash/{number}/{one.k}/{fault}"
        for number, scene in enumerate(SCENES)
        for one in _chosen(scene)
        for fault in _faults(number, one)
    ]
    return operations_fail + [
        f"flash/{number}/read/{start}/{place}/{n}/{kind}"
        for number in range(len(SCENES))
        for start, place, n in _READS
        for kind in _READ_KINDS
    ]


def _image_in(one: Operation, scene: Scene, version: str) -> bytes:
    # What an image puts where the operation works.
    start = one.address - PLACES[scene.other]
    return image(version)[start : start + one.length].ljust(one.length, b"\xff")


def _bit(content: bytes, number: int) -> int:
    return content[number // 8] >> number % 8 & 1


def _stuck_at(one: Operation, scene: Scene, number: int) -> int:
    # The value of a bit of the slot that is stuck for ever.
    return 0 if one.erase else 1 - _bit(_image_in(one, scene, NEW), number)


def _in_slot(one: Operation, scene: Scene, kind: str, number: int) -> set:
    # What the upgrade comes to. What the flash does wrong once, the second round mends.
    if kind == "error":
        return {_ERASE if one.erase else _WRITE}
    if kind == "stuck":
        return _on_stuck_bit(one, scene, number, NEW)
    return {_READ_BACK if kind == "unread" else SUCCEEDED}


def _on_stuck_bit(one: Operation, scene: Scene, number: int, version: str) -> set:
    # Behind the end of the image it does not matter.
    inside = number // 8 < len(image(version)) - (one.address - PLACES[scene.other])
    hurt = _bit(_image_in(one, scene, version), number) != _stuck_at(one, scene, number)
    return {_READ_BACK if inside and hurt else SUCCEEDED}


def _in_records(one: Operation, scene: Scene, kind: str) -> set:
    if kind == "stuck":
        return _ANY
    done = operations(scene)
    ours = [other.k for other in done if other.place == "otadata"]
    # An erase alone: the record of the slot that is going to be written.
    alone = [k for k in ours if done[k].erase and k + 1 not in ours]
    if one.k in alone:
        return {"error": {_READ_BACK}, "unread": {SUCCEEDED, _READ_BACK, _SWITCH}}.get(
            kind, {SUCCEEDED}
        )
    # Erase and program each; a new device writes one more, at its first start.
    writes = [k for k in ours if k not in alone]
    at = writes.index(one.k) // 2 - len(writes) // 2 + len(_RECORDS)
    if at < 0:
        return {SUCCEEDED}
    return {_SWITCH} if (at, kind) == (0, "error") else _RECORDS[at]


def _later(one: Operation, scene: Scene, number: int, what: object) -> set:
    # What the next upgrade comes to, on a chip with a stuck bit.
    if one.place == "otadata":
        return _ANY
    if one.place == "nvs" or what == SUCCEEDED:  # it goes to the other slot
        return {SUCCEEDED}
    return _on_stuck_bit(one, scene, number, LATER)


def _restart(world: World, forgive: bool = False) -> None:
    # Power off and on. forgive: an erase did nothing, and told nobody; what was then asked of its
    # bits is no violation of the firmware's.
    world.device.power_cut()
    if forgive:
        with world.device.flash_path.with_name("flash.bin.counters").open("r+b") as file:
            operations, erases, _, aborts = struct.unpack("<4I", file.read(16))
            file.seek(0)
            file.write(struct.pack("<4I", operations, erases, 0, aborts))
    seen = world.record.events
    world.device.start()
    world.until(lambda: world.record.last_idle > seen, "the device comes to rest again")


def _run(name: str, folder: Path) -> None:
    if "/read/" in name:
        _run_read(name, folder)
    else:
        _run_operation(name, folder)


def _run_read(name: str, folder: Path) -> None:
    _, where, _, start, place, n, kind = name.split("/")
    scene = SCENES[int(where)]
    fault, size = None, SMALL
    if start == "resumed":  # the cut comes when the first 64 KiB are noted
        start, size = "1", UNITS
        fault = (
            f"{[one.k for one in operations(scene, UNITS) if one.place == scene.other][-1]}:before"
        )
    # In start 1 of an upgrade without a cut the new slot runs.
    runs = scene.slot if start == "0" or fault else scene.other
    label = {"running": runs, "slot": scene.other}.get(place, place)
    low, high = next((row[3], row[3] + row[4]) for row in ROWS if row[0] == label)
    more = _HOOK % ((int(start), low, high, int(n), kind),)
    with World(folder, scene, fault, more=more) as world:
        task = begin(world, size)
        world.finish(task)
        need((world.device.fs / "failed").exists(), "the fault was not reached", world)
        need(not any(", in poll" in line for line in world.device.console), "it crashed", world)
        what = check.outcome(world, task, _READ_ENDS)
        _restart(world)
        check.outcome(world, task, {what})
        check.follow(world)


def _run_operation(name: str, folder: Path) -> None:
    _, where, k, fault = name.split("/")
    scene = SCENES[int(where)]
    one = operations(scene)[int(k)]
    kind, _, number = fault.partition(":")
    number = int(number or 0)
    allowed, told = {SUCCEEDED}, True
    if one.place == scene.other:
        allowed = _in_slot(one, scene, kind, number)
    elif one.place == "otadata":
        allowed = _in_records(one, scene, kind)
    else:  # the journal can be lost
        told = False
    with World(folder, scene, f"{k}:{fault}") as world:
        task = begin(world)
        world.finish(task)
        need(world.device.counters["operations"] > one.k, "the fault was not reached", world)
        what = check.outcome(world, task, allowed, told)
        if one.place != "otadata":  # nothing but the switch starts it again
            starts = len(world.record.boots)
            need(starts == (2 if what == SUCCEEDED else 1), f"{starts} starts", world)
        need(not any("Traceback" in line for line in world.device.console), "it crashed", world)
        # What it told stays true when it starts again.
        _restart(world, forgive=one.erase and kind == "skip")
        check.outcome(world, task, {what}, told)
        if kind == "stuck":
            task = world.offer(LATER)
            world.finish(task)
            check.outcome(world, task, _later(one, scene, number, what), told)
            _restart(world)  # a failed download leaves its code on the heap
            check.end(world)
        else:
            check.follow(world)


GROUP = Group("flash", "flash errors", _cases, _run, sample=40)
