"""
The agent's records in NVS are gone, garbled, or those of another upgrade, at each start of an
upgrade.

They are changed between the boot loader and the firmware, through the same model of NVS.
"""

import contextlib
import json
from pathlib import Path

from tools.device.port.flash import Flash
from tools.faults import check
from tools.faults.case import Group
from tools.faults.check import SUCCEEDED, need
from tools.faults.scene import PLACES, ROWS, SCENES, SMALL, UNITS, Scene, open_nvs
from tools.faults.upgrade import ROLLED_BACK, begin, operations
from tools.faults.world import World

# States of the record, see ota/agent.py.
_WAITING, _FETCHING, _SWITCHING, _DONE, _TOLD = range(1, 6)

# The starts, as the slots that ran until then: "o", the old one, "n", the new one.
_STARTS = {"first": "o", "download": "oo", "trial": "on", "rollback": "ono", "confirmed": "onn"}

# The journal that took the upgrade on is needed again to tell its end, so the version has to do.
_ALONE = ("trial", "confirmed")

_LOST = ("blank", "a", "b", "both")

# No record at all.
_TEXTS = {
    "empty": b"",
    "zeros": bytes(100),
    "words": b"no record",
    "long": b'{"turn": 1000000, "state": "' + b"3" * 1000 + b'"}',
    "nested": b"[" * 900,
    "list": b"[1, 2, 3]",
    "null": b"null",
    "number": b"5",
    "string": b'"turn"',
    "no-turn": b'{"state": 3}',
}

# What the newest record has otherwise; it stays the newest, unless its turn says another thing.
_CHANGES = {
    "turn-huge": {"turn": 1 << 70},
    "turn-negative": {"turn": -1},
    "turn-fraction": {"turn": 1e30},
    "turn-text": {"turn": "1000"},
    "turn-null": {"turn": None},
    "state-unknown": {"state": 99},
    "state-text": {"state": "3"},
    "state-null": {"state": None},
    "slot-text": {"slot": "ota_1", "state": _SWITCHING},
    "units-huge": {"units": 1000, "state": _FETCHING},
    "units-negative": {"units": -1, "state": _FETCHING},
    "units-text": {"units": "1", "state": _FETCHING},
    "texts-null": {"msg_id": None, "version": None, "sign": None},
    "texts-numbers": {"msg_id": 7, "version": 1.1, "sign": 0},
    "code-text": {"code": "440", "state": _DONE},
    "late-text": {"late": "x"},
    "notes-numbers": {"v16": 1, "v17": 1},
    "methods": {"save": 1, "take": 2, "load": 3},
}

_OTHER = {"msg_id": "other", "version": "9.9.9", "sign": "0" * 32, "code": 0, "units": 1}
_OTHERS = {
    "other-waiting": {"state": _WAITING},
    "other-fetching": {"state": _FETCHING},
    "other-switching-here": {"state": _SWITCHING},
    "other-switching-there": {"state": _SWITCHING},
    "other-succeeded": {"state": _DONE},
    "other-failed": {"state": _DONE, "code": 440},
    "other-told": {"state": _TOLD, "code": 440},
}


def _hurt(flash: Flash, label: str, start: str, kind: str) -> None:
    # Changes the records of the slot that starts. Raises OSError: there was nothing to lose.
    if kind == "blank":
        size = next(row[4] for row in ROWS if row[0] == "nvs")
        flash.poke(PLACES["nvs"], b"\xff" * size)
        return
    nvs = open_nvs(flash, label, "ota")
    if kind in _LOST:
        if start == "first":  # a new device has none: then those of an earlier upgrade
            for turn, key in enumerate("ab", 1):
                record = _OTHER | _OTHERS["other-told"] | {"turn": turn, "slot": 17}
                nvs.set_blob(key, json.dumps(record).encode())
        for key in "ab":
            try:
                nvs.get_blob(key, bytearray(1000))
            except OSError:  # the first upgrade of all: as if there had been one before
                record = _OTHER | _OTHERS["other-told"] | {"turn": 0}
                nvs.set_blob(key, json.dumps(record).encode())
        for key in "ab" if kind == "both" else kind:
            nvs.erase_key(key)
        return
    key, newest = "a", {"turn": 0}
    for name in "ab":
        text = bytearray(1000)
        with contextlib.suppress(OSError):
            record = json.loads(text[: nvs.get_blob(name, text)])
            if record["turn"] > newest["turn"]:
                key, newest = name, record
    if kind in _TEXTS:
        text = _TEXTS[kind]
    else:
        here = 16 + int(label[-1])
        slot = here if kind == "other-switching-here" else here ^ 1
        changes = _CHANGES.get(kind) or _OTHER | _OTHERS[kind] | {"slot": slot}
        text = json.dumps(newest | {"turn": newest["turn"] + 2} | changes).encode()
    nvs.set_blob(key, text)


def _fault(scene: Scene, start: str) -> str | None:
    # The power cut before that start.
    if start == "download":  # when the first 64 KiB are noted
        notes = [one.k for one in operations(scene, UNITS) if one.place == scene.other]
        return f"{notes[-1]}:before"
    if start == "confirmed":
        records = [one.k for one in operations(scene) if one.place == "otadata"]
        return f"{records[-1]}:after"
    return None


def _cases() -> list[str]:
    return [
        f"records/{number}/{start}/{kind}"
        for number in range(len(SCENES))
        for start in _STARTS
        for kind in (*_LOST, *_TEXTS, *_CHANGES, *_OTHERS)
    ]


def _run(name: str, folder: Path) -> None:
    _, number, start, kind = name.split("/")
    scene = SCENES[int(number)]
    with World(folder, scene, _fault(scene, start)) as world:
        done = []

        def at_boot(flash: Flash, label: str | None, cause: int) -> None:
            ran = "".join("on"[boot.label == scene.other] for boot in world.record.boots)
            if ran == _STARTS[start]:
                _hurt(flash, label, start, kind)
                done.append(ran)

        world.at_boot = at_boot
        app = "import machine\nmachine.reset()\n" if start == "rollback" else None
        task = begin(world, UNITS if start == "download" else SMALL, app=app)
        world.finish(task)
        need(done, f"there was no start {start}", world)
        if kind != "other-succeeded":
            _told_by_itself(world)
        # What it tells of another upgrade is not the platform's affair.
        heard = world.record.heard
        heard[:] = [message for message in heard if message.msg_id != _OTHER["msg_id"]]
        allowed = {ROLLED_BACK} if start == "rollback" else {SUCCEEDED}
        check.outcome(world, task, allowed, told=start not in _ALONE)
        check.follow(world)


def _told_by_itself(world: World) -> None:
    # A success is told by the image that is one.
    for message in world.record.heard:
        if message.data.get("status") == "succeeded":
            runs = world.record.boots[message.boots - 1].version
            need(message.data["firmwareVersion"] == runs, f"{message}, and {runs} ran", world)


GROUP = Group("records", "records lost", _cases, _run, sample=40)
