"""
Too little memory: every size of the heap from one in which the device just starts to one in which
an upgrade just works; and a heap that gives nothing for the time of one call of the agent.
"""

import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from ota import protocol as p
from tools.faults import check, trust
from tools.faults.behaviours import drip
from tools.faults.case import Group
from tools.faults.check import SUCCEEDED, need
from tools.faults.scene import NEW, OLD, SCENES
from tools.faults.upgrade import bite
from tools.faults.world import World
from tools.platform.model import PUSH_FAILED

_STEP = 64  # bytes of heap
_BELOW, _ABOVE = 2048, 1024  # bytes beyond what bisection finds, which is not sharp
_ABOUT = 80 << 10, 98 << 10  # bytes: the device starts, an upgrade succeeds
_LEAST, _MOST = 64 << 10, 160 << 10  # bytes: the device does not start; all is well
_STARTS = 6  # of a device in a loop of restarts
_TRIAL_MS = 120_000  # of the watchdog
_ROLLED_BACK = frozenset(range(460, 464))
_FAILED = _ROLLED_BACK | {p._MEMORY}

# What may become of an upgrade when a call of the agent fails: before the restart, and behind it.
_CALLS = {
    "poll": "agent.poll()",
    "connected": "agent.connected()",
    "is_fetching": "agent.is_fetching()",
    "fetch_finish": "agent.fetch_finish()",
    "fetch_yield": "agent.fetch_yield(buf, 0)",
    "report_progress": 'agent.report_progress("downloading", 1)',
    "report_firmware_version": "agent.report_firmware_version()",
    "get_firmware_info": 'agent.get_firmware_info("1.1.0")',
    "cancel": "agent.cancel()",
    "destroy": "agent.destroy()",
}
_ALLOWED = {"cancel": {p._CANCELLED}, "destroy": {p._DESTROYED}}

# When, before the restart and behind it: number of a poll of that kind; 0 = the call of ota.init.
_OLD_POLLS = {"any": range(1, 7), "arrives": range(1, 5), "fetching": range(1, 9)}
_OLD_POLLS["leaving"] = range(1, 2)
_NEW_POLLS = {"any": range(1, 9), "arrives": range(1, 5)}
_POLLS = {OLD: _OLD_POLLS, NEW: _NEW_POLLS}
_RATE = 24_000  # bytes a second from the file server: so that the download takes many polls

# Calls it once without memory, in the image of that version, before the poll of that number of
# that kind. `fault` remembers it over restarts.
_LOCK = """
import micropython, os, sys
from firmware import VERSION
del sys.modules["firmware"]
buf = bytearray(512)
polls = 0


def call(agent):
    %s


def locked(function):
    # Without arguments: a call with a star takes heap itself.
    open("fault", "w").close()
    what = None
    micropython.heap_lock()
    try:
        function()
    except Exception as e:
        what = e
    micropython.heap_unlock()
    print("fault", repr(what))


def step(agent, link):
    global polls
    kinds = ["any"]
    if link.up and link.sock.poll(0):
        kinds.append("arrives")
    if agent.is_fetching():
        kinds.append("fetching")
    elif agent.fetch_finish():
        kinds.append("leaving")
    if %r in kinds:
        polls += 1
        if polls == %d:
            locked(lambda: call(agent))


if VERSION != %r or "fault" in os.listdir():
    step = None
elif %d == 0:
    import ota

    init = ota.init

    def first(*args, **named):
        def begin():
            init(*args, **named)

        ota.init = init
        locked(begin)
        return init(*args, **named)

    ota.init = first
"""


@lru_cache(maxsize=1)
def _edges() -> tuple[int, int]:
    # Heaps in bytes: the least in which the device connects, in which an upgrade succeeds.
    return _least(_connects), _least(_upgrades)


def _least(works: Callable[[World], bool]) -> int:
    low, high = _LEAST // _STEP, _MOST // _STEP
    while high - low > 1:
        middle = (low + high) // 2
        with (
            tempfile.TemporaryDirectory() as folder,
            World(Path(folder, "device"), heapsize=str(middle * _STEP)) as world,
        ):
            low, high = (low, middle) if works(world) else (middle, high)
    return high * _STEP


def _connects(world: World) -> bool:
    world.device.start()
    world.until(lambda: world.record.idles or _given_up(world), "idle, or restarts")
    return bool(world.record.idles)


def _upgrades(world: World) -> bool:
    task = world.offer(NEW)
    world.device.start()
    world.until(lambda: task.at_rest or _given_up(world), "an outcome, or restarts")
    return task.status == SUCCEEDED


def _given_up(world: World) -> bool:
    # The device restarts again and again, or waits at its prompt.
    return len(world.record.boots) > _STARTS or ">>>" in world.device.console[-1:]


def _cases() -> list[str]:
    low, high = _edges()
    return _names(low - _BELOW, high + _ABOVE)


def _few() -> list[str]:
    # Where the edges are about; looking for them takes long.
    return _names(*_ABOUT)


def _names(low: int, high: int) -> list[str]:
    names = [f"memory/{heap}" for heap in range(low, high, _STEP)]
    for version, kinds in _POLLS.items():
        names.append(f"memory/lock/init/{version}/any/0")
        for kind, polls in kinds.items():
            names += [f"memory/lock/{c}/{version}/{kind}/{k}" for c in _CALLS for k in polls]
    return names


def _run(name: str, folder: Path) -> None:
    _, heap, *rest = name.split("/")
    if rest:
        _lock(folder, *rest)
    else:
        _small(folder, heap)


def _small(folder: Path, heap: str) -> None:
    with World(folder, heapsize=heap) as world:
        task = world.offer(NEW)
        world.device.start()
        world.until(lambda: task.at_rest or _given_up(world), "an outcome, or restarts")
        # What was taken on ends by its code.
        taken = any(heard.code == p._ACCEPTED for heard in world.record.heard)
        need(not taken or len(world.record.boots) <= _STARTS, "restarts without an end", world)
        if world.record.boots[-1].version == NEW and not task.at_rest:
            # The trial of the new image came to its prompt.
            bite(world, len(world.record.boots), _TRIAL_MS)
        world.device.power_cut()
        world.device.heapsize = str(_MOST)
        world.device.start()
        world.finish(task)
        # A signed command has 1.3 KB: one for which there is no piece of heap is thrown away, so
        # the platform alone can tell that it failed.
        lost = trust.SIGNED and task.remark == PUSH_FAILED
        check.outcome(world, task, {None} if lost else {SUCCEEDED, *_FAILED}, told=not lost)
        check.follow(world)


def _lock(folder: Path, call: str, version: str, kind: str, k: str) -> None:
    more = _LOCK % (_CALLS.get(call, "pass"), kind, int(k), version, int(k))
    with World(folder, SCENES[int(k) % len(SCENES)], more=more) as world:
        world.web.behave = drip(_RATE)
        task = world.offer(NEW)
        world.device.start()
        world.finish(task)
        need((world.device.fs / "fault").exists(), "no call was made", world)
        own = _ALLOWED.get(call, set()) | {p._MEMORY} if version == OLD else _ROLLED_BACK
        check.outcome(world, task, {SUCCEEDED, *own})
        check.follow(world)


GROUP = Group("memory", "memory", _cases, _run, sample=30, few=_few)
