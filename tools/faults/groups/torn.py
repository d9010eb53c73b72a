"""
The power goes in the middle of a flash operation, at every operation of an upgrade; and in every
way that it can tear a boot record.
"""

import random
from pathlib import Path

from tools.device.port import otadata
from tools.faults.case import Group
from tools.faults.scene import SCENES, Scene
from tools.faults.upgrade import Operation, operations, outcomes, play

_HALF = 2048  # bytes of a sector
_RECORD = 32  # bytes
_SUBSETS = 1000  # of the bits of boot records
_NUMBERS = 1 << 16


def _kinds(number: int, operation: Operation) -> list[str]:
    # Of any operation. Numbers are drawn for each by itself.
    draw = random.Random(f"{number} {operation.k}").randrange
    if operation.erase:
        some = ["torn:0", f"torn:{_HALF}", f"tail:{_HALF}"]
    else:
        some = [f"torn:{draw(1, operation.length)}", f"but:{draw(_NUMBERS)}"]
    return [*some, f"random:{draw(_NUMBERS)}", f"spoil:{draw(_NUMBERS)}"]


def _records(scene: Scene) -> list[tuple[int, bytes]]:
    # The boot records that an upgrade programs into erased sectors: operation, the record.
    programs = [one.k for one in operations(scene) if one.place == "otadata" and not one.erase]
    number = 2 if scene.slot == "ota_0" else 3
    wanted = [(number, otadata.NEW), (number, otadata.PENDING_VERIFY), (number, otadata.VALID)]
    if scene.slot == "ota_0":  # its first start
        wanted.insert(0, (1, otadata.VALID))
    records = []
    for seq, state in wanted:
        record = bytearray(b"\xff" * _RECORD)
        otadata.set_seq(record, seq)
        otadata.set_state(record, state)
        records.append(bytes(record))
    return list(zip(programs, records, strict=True))


def _cases() -> list[str]:
    names = []
    torn = []
    for number, scene in enumerate(SCENES):
        for operation in operations(scene):
            names += [f"torn/{number}/{operation.k}/{kind}" for kind in _kinds(number, operation)]
        for k, record in _records(scene):
            due = sum(8 - byte.bit_count() for byte in record)
            names += [f"torn/{number}/{k}/torn:{size}" for size in range(_RECORD)]
            names += [f"torn/{number}/{k}/only:{bit}" for bit in range(due)]
            torn.append((number, k))
    for seed in range(_SUBSETS):
        number, k = torn[seed % len(torn)]
        names.append(f"torn/{number}/{k}/random:{_NUMBERS + seed}")
    return list(dict.fromkeys(names))


def _run(name: str, folder: Path) -> None:
    _, number, k, kind = name.split("/")
    scene = SCENES[int(number)]
    # A spoiled page of NVS can cost the journal.
    done = operations(scene)
    spoiled = kind.startswith("spoil") and done[int(k)].place == "nvs"
    play(folder, scene, f"{k}:{kind}", outcomes(done, int(k)), told=not spoiled)


GROUP = Group("torn", "torn operations", _cases, _run, sample=40)
