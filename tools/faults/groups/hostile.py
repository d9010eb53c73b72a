"""
Messages that no platform should send: a table of them, and mutations of good ones; to a device at
rest, in a download, in a trial.
"""

import asyncio
import json
from pathlib import Path

from ota import protocol as p
from tools.faults import check, fuzz, trust
from tools.faults.case import Group
from tools.faults.check import SUCCEEDED, need
from tools.faults.handmade import HAND
from tools.faults.hostile import HOLD, MORE, Hostile
from tools.faults.scene import SCENES
from tools.faults.upgrade import begin
from tools.faults.web import Exchange
from tools.faults.world import World
from tools.platform.model import UPGRADING

# A download gives up at once; nothing else has to wait for it.
_OPTIONS = "dict(tries=0, stall_s=60, total_s=100, trial_s=60, self_test=lambda: going or None)"

_BATCH = 100
_AT_REST, _IN_TRIAL, _IN_DOWNLOAD = 100, 5, 10  # batches
_FEW = 20  # messages in a download: it looks at MQTT ten times a second
_ANSWERS = 4  # every so many messages is an answer to the device's own question
_GROWN = 1024  # bytes that a batch may leave behind, see Hostile.rest


def _cases() -> list[str]:
    batches = (("rest", _AT_REST), ("trial", _IN_TRIAL), ("download", _IN_DOWNLOAD))
    return [f"hostile/hand/{name}" for name in HAND] + [
        f"hostile/{when}/{seed}" for when, count in batches for seed in range(count)
    ]


def _run(name: str, folder: Path) -> int | None:
    _, when, which = name.split("/")
    scene = SCENES[sum(name.encode()) % len(SCENES)]
    with World(folder, scene, options=_OPTIONS, more=MORE) as world:
        hostile = Hostile(world)
        tried = {"hand": _hand, "rest": _at_rest, "trial": _in_trial, "download": _in_download}[
            when
        ](world, hostile, which)
        check.follow(world)
    return tried


def _hand(world: World, hostile: Hostile, which: str) -> None:
    payload, allowed = HAND[which]
    if trust.SIGNED:  # see rest()
        allowed = allowed | {p._UNSIGNED}
    _begin(world)
    codes = hostile.replies(payload)
    need(len(codes) == 1 and codes[0] in allowed, f"answered {codes}, not {allowed}", world)
    hostile.rest()


def _at_rest(world: World, hostile: Hostile, seed: str) -> int:
    _begin(world)
    # What the first upgrade loads stays.
    hostile.fuzzed(json.dumps(fuzz.good()).encode(), False)
    hostile.rest()
    used = world.record.idles[-1]
    for number in range(_BATCH):
        asked = number % _ANSWERS == 0
        bases = fuzz.ANSWER_BASES if asked else fuzz.BASES
        (payload,) = fuzz.messages(f"{seed}/{number}", 1, bases)
        hostile.fuzzed(payload, asked)
    hostile.rest()
    grown = world.record.idles[-1] - used
    need(grown < _GROWN, f"{grown} bytes of heap are gone", world)
    return _BATCH


def _in_trial(world: World, hostile: Hostile, seed: str) -> int:
    world.device.put(HOLD, "")
    task = begin(world)
    world.until(lambda: len(world.record.boots) == 2, "the trial begins")
    hostile.subscribed(2)
    _commands(hostile, f"trial/{seed}", _BATCH)
    _refused(hostile, p._PENDING)
    need(len(world.record.boots) == 2, "it started anew", world)
    (world.device.fs / HOLD).unlink()
    hostile.say("go")
    world.finish(task)
    check.outcome(world, task, {SUCCEEDED})
    return _BATCH


def _in_download(world: World, hostile: Hostile, seed: str) -> int:
    reached, told = asyncio.Event(), asyncio.Event()

    async def behave(exchange: Exchange) -> None:
        half = len(exchange.content) // 2
        await exchange.send(exchange.good_head() + exchange.content[:half])
        reached.set()
        await told.wait()
        await exchange.send(exchange.content[half:])

    world.web.behave = behave
    task = begin(world)
    world.until(reached.is_set, "the download begins")
    world.until(lambda: task.status == UPGRADING, "the platform has the reply")
    _commands(hostile, f"download/{seed}", _FEW)
    _refused(hostile, p._BUSY)
    need(len(world.record.boots) == 1, "it started anew", world)
    world.web.behave = None
    world.do(told.set)
    world.finish(task)
    check.outcome(world, task, {SUCCEEDED})
    return _FEW


def _begin(world: World) -> None:
    world.device.start()
    world.settle()


def _refused(hostile: Hostile, code: int) -> None:
    # A good command for another version than the one that is under way.
    codes = hostile.replies(json.dumps(fuzz.good()).encode())
    need(codes == [code], f"answered {codes}", hostile.world)


def _commands(hostile: Hostile, seed: str, count: int) -> None:
    for payload in fuzz.messages(seed, count, fuzz.BASES):
        hostile.fuzzed(payload, False)


GROUP = Group("hostile", "hostile messages", _cases, _run, sample=20)
