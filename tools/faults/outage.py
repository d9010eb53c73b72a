"""
What the cases have in common in which something goes away and, mostly, comes back.

An outage is a function (folder, scene) that plays a whole case, and raises Failed. The device has
tries=2, so that a download is given up 3 s after it breaks, and trial_s=5.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from tools.platform.model import Task

from . import check
from .behaviours import first_at
from .scene import NEW, UNITS, Scene
from .web import Exchange
from .world import World

Outage = Callable[[Path, Scene], None]

NO_CONNECTION, SELF_TEST, NOT_CONNECTED = 430, 461, 462

WITHIN_S = 1  # of a trial, or until the first of the tries
SOON_S = 0.2  # in which the device reads what was sent
HALF = UNITS // 2

# For the end of boot.py, see app.py: a new image waits for a file `go`.

EXISTS = """
import os, socket, sys, time
def exists(name):
    try:
        os.stat(name)
        return True
    except OSError:
        return False
"""
HOLD = (
    EXISTS
    + """
def begin(agent, link):
    if not agent.tested:
        print("on trial")
        for _ in range(2000):
            if exists("go"):
                break
            time.sleep_ms(5)
"""
)


def ends(world: World, task: Task, *allowed) -> None:
    world.finish(task)
    check.outcome(world, task, set(allowed))


def follow(world: World) -> None:
    world.web.behave = None
    check.follow(world)


def says(world: World, line: str, times: int = 1) -> None:
    """Waits for a line of the device."""
    world.until(lambda: world.device.console.count(line) >= times, line)


def starts(world: World, count: int) -> None:
    world.until(lambda: len(world.record.boots) >= count, f"start {count}")


def go(world: World) -> None:
    world.device.put("go", "")


def begin_alone(world: World) -> Task:
    """Power on, with a command that nobody can tell yet."""
    task = world.offer(NEW, UNITS)
    world.device.start()
    return task


def halt(world: World, n: int) -> Callable[[], None]:
    """The first connection that gets to byte n halts there. Returns what waits for that."""
    reached = threading.Event()

    async def halts(exchange: Exchange) -> None:
        await exchange.pause(SOON_S)
        reached.set()
        await exchange.gone()

    world.web.behave = first_at(n, halts)
    return lambda: world.until(reached.is_set, f"byte {n}")
