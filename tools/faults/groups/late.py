"""
Late failure: an image that was confirmed and then crashes. Three crashes bring the old slot back,
once, and the platform hears of it; fewer, later or other restarts do not.
"""

import tempfile
from functools import lru_cache, partial
from pathlib import Path

from tools.faults import check
from tools.faults.case import Group
from tools.faults.check import LATE_FAILURE, SUCCEEDED, need
from tools.faults.scene import NEW, OLD, PLACES, SCENES
from tools.faults.upgrade import begin
from tools.faults.world import OPTIONS, World
from tools.platform import model
from tools.platform.model import Task

# How the new image ends a start of its, once it has told all; N times in all.
_CRASHES = {
    "exception": "1 / 0",
    "reset": "machine.reset()",
    "hang": "machine.WDT(timeout=200)\n            while True: pass",
    "sleep": "machine.deepsleep(10)",
    "soft": "machine.soft_reset()",
    "power": "open('off', 'w').close()\n            while True: time.sleep(1)",
}
_COUNT = ("exception", "reset", "hang")  # those that are crashes

# In a start of NEW: waits until the device is quiet, then crashes, while the file says so.
_HOOK = """
import machine, time

polls = 0

def crashes():
    try:
        with open("crashes") as file:
            return int(file.read())
    except OSError:
        return 0

def step(agent, link):
    global polls
    if agent.version != "{version}" or not agent.tested or not link.up or link.unacked:
        polls = 0
        return
    polls += 1
    if polls == {polls}:
        count = crashes()
        if count < {most}:
            with open("crashes", "w") as file:
                file.write(str(count + 1))
            {crash}
"""
_SOON = 40  # polls, about 0.1 s
_LATE = 1000  # polls, 2 s at least
_MANY = 6  # crashes


def _cases() -> list[str]:
    names = []
    for number in range(len(SCENES)):
        for crash in _CRASHES:
            names += [f"late/{number}/{crash}/{most}" for most in (1, 2, 3, 5)]
        names += [f"late/{number}/{what}/3" for what in ("off", "calm", "spoilt", "once")]
        for k in _operations(number):
            names += [f"late/{number}/cut/{k}/{kind}" for kind in ("before", "random", "after")]
    return names


@lru_cache(maxsize=8)
def _operations(number: int) -> range:
    # Of the flash, from the first crash on until the old image has told it.
    with (
        tempfile.TemporaryDirectory() as folder,
        _world(Path(folder, "device"), number, most=3) as world,
    ):
        task = begin(world)
        world.finish(task)
        first = world.device.counters["operations"]
        _until_back(world, task)
        return range(first, world.device.counters["operations"])


def _world(folder: Path, number: int, most: int, **more) -> World:
    hook = _HOOK.format(version=NEW, most=most, crash=_CRASHES["exception"], polls=_SOON)
    return World(folder, SCENES[number], more=hook, **more)


def _until_back(world: World, task: Task) -> None:
    world.until(lambda: task.code == LATE_FAILURE, "the platform hears of it")
    world.settle()
    need(check.running(world) == OLD, "the old image does not run", world)
    need(task.remark == model.BURN_FAILED, f"remark {task.remark}", world)
    need(world.backend.device.version == OLD, "the old version was not told", world)


def _cut(name: str, folder: Path) -> None:
    # The power goes on the way back. That is no crash, so one more may be needed; and the old
    # image may have had its chance, when the cut fell into its start.
    _, number, _, k, kind = name.split("/")
    fault = f"{k}:{kind}:{k}" if kind == "random" else f"{k}:{kind}"
    with _world(folder, int(number), most=_MANY, fault=fault) as world:
        task = begin(world)
        world.until(lambda: task.status == model.SUCCEEDED, "the upgrade succeeds")
        crashes = world.device.fs / "crashes"
        world.until(
            lambda: (
                task.code == LATE_FAILURE
                or (crashes.exists() and crashes.read_text(encoding="ascii") == str(_MANY))
            ),
            "an end of the crashes",
        )
        world.settle()
        need(world.device.counters["operations"] > int(k), "the fault was not reached", world)
        runs = check.running(world)
        need(runs == (OLD if task.code == LATE_FAILURE else NEW), f"{task}, {runs} runs", world)
        need(world.backend.device.version == runs, "the version told last is another", world)
        check.follow(world)


def _run(name: str, folder: Path) -> None:
    if "/cut/" in name:
        _cut(name, folder)
        return
    _, number, what, most = name.split("/")
    crash = what if what in _CRASHES else "exception"
    goes_back = crash in _COUNT and int(most) >= 3 and what not in ("off", "calm", "spoilt")
    options = OPTIONS[:-1] + {"off": ", late_s=0)", "calm": ", late_s=1)"}.get(what, ")")
    hook = _HOOK.format(
        version=NEW, most=most, crash=_CRASHES[crash], polls=_LATE if what == "calm" else _SOON
    )
    with World(folder, SCENES[int(number)], options=options, more=hook) as world:
        task = begin(world)
        world.until(lambda: task.status == model.SUCCEEDED, "the upgrade succeeds")
        if what == "spoilt":
            _spoil(world)
        _sit_out(world, int(most), crash)
        if goes_back:
            _until_back(world, task)
        else:
            world.until(lambda: _rested(world), "its last start comes to rest")
            world.settle()
            need(check.running(world) == NEW, "the new image does not run", world)
            need(task.status == model.SUCCEEDED, f"{task}", world)
        told = [h for h in world.record.heard if h.data.get("code") == LATE_FAILURE]
        need(len({h.msg_id for h in told}) == int(goes_back), f"told {told}", world)
        if what == "once":
            _try_again(world)
        check.follow(world)


def _sit_out(world: World, most: int, crash: str) -> None:
    # Until the new image has crashed so often, or is gone.
    def gone(count: int) -> bool:
        starts = sum(boot.version == NEW for boot in world.record.boots)
        return count < starts or check.running(world) == OLD

    for count in range(1, most + 1):
        if crash in _COUNT and count > 3:
            return
        if crash == "power":
            off = world.device.fs / "off"
            world.until(off.exists, f"power cut {count}")
            off.unlink()
            world.device.power_cut()
            world.device.start()
        world.until(partial(gone, count), f"crash {count}")


def _rested(world: World) -> bool:
    # What it makes of its last crash shows in the start after that.
    starts = "\n".join(world.device.console).split(" starts, cause ")
    return len(starts) > len(world.record.boots) and "\nidle " in starts[-1]


def _spoil(world: World) -> None:
    # The old slot is not whole any more: one byte, from outside.
    label = world.scene.slot
    flash = world.device.open_flash()
    try:
        flash.poke(PLACES[label] + 4000, bytes([flash.read(PLACES[label] + 4000, 1)[0] ^ 1]))
    finally:
        flash.close()


def _try_again(world: World) -> None:
    # The same version once more: it crashes no more, and is kept.
    task = world.offer(NEW)
    world.finish(task)
    check.outcome(world, task, {SUCCEEDED})


GROUP = Group("late", "late failure", _cases, _run, sample=10)
