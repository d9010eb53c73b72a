"""
File server and broker go away, or refuse a connection.

OUTAGES: see outage.py.
"""

import socket
import threading
import time
from functools import partial
from pathlib import Path

from . import check
from .answers import once, second, status
from .behaviours import first_at
from .check import SUCCEEDED, need
from .outage import (
    HALF,
    HOLD,
    NO_CONNECTION,
    NOT_CONNECTED,
    SOON_S,
    WITHIN_S,
    Outage,
    begin_alone,
    ends,
    follow,
    go,
    halt,
    says,
    starts,
)
from .scene import UNITS, Scene
from .upgrade import begin
from .web import Exchange
from .world import World, call

_REPLY_LOOKS = 90  # 0.01 s between two: in all less than stall_s


# The file server


def _refused(middle: bool, folder: Path, scene: Scene) -> None:
    """One connection is refused, at the start or when it resumes."""
    with World(folder, scene) as world, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        port = nobody.getsockname()[1]
        away = status("302 Found", f"Location: http://127.0.0.1:{port}/")
        world.web.behave = second(away) if middle else once(away)
        ends(world, begin(world, UNITS), SUCCEEDED)
        asked = [request.start for request in world.web.requests]
        need(len(asked) == 2 + middle, f"requests from {asked}", world)
        if middle:
            check.resumed(world, HALF)
            need(asked[1] == asked[2], f"requests from {asked}", world)
        follow(world)


def _refused_ever(folder: Path, scene: Scene) -> None:
    with World(folder, scene) as world:
        call(world.web.stop())
        ends(world, begin(world), NO_CONNECTION)
        call(world.web.start(world.ports[1]))
        follow(world)


def _server(seconds: float, allowed: str | int, folder: Path, scene: Scene) -> None:
    """It stops in the middle, for so long."""
    with World(folder, scene) as world:
        halted = halt(world, HALF)
        task = begin(world, UNITS)
        halted()
        call(world.web.stop())
        time.sleep(seconds)
        call(world.web.start(world.ports[1]))
        ends(world, task, allowed)
        if allowed == SUCCEEDED:
            check.resumed(world, HALF)
        follow(world)


# The broker


async def _replied(world: World, exchange: Exchange) -> None:
    """So that the platform does not count it as Push Failed, after 10 s without an answer."""
    for _ in range(_REPLY_LOOKS):
        if any(heard.name == "upgrade_reply" for heard in world.record.heard):
            break
        await exchange.pause(0.01)


def _broker_start(folder: Path, scene: Scene) -> None:
    with World(folder, scene) as world:
        call(world.broker.stop())
        task = begin_alone(world)
        says(world, "version 1.0.0")
        time.sleep(WITHIN_S)
        call(world.broker.start())
        ends(world, task, SUCCEEDED)
        follow(world)


def _broker_fetch(n: int, after_s: float, folder: Path, scene: Scene) -> None:
    """It stops at byte n; with after_s it comes back so long after the last byte."""
    back = threading.Event()

    async def stops(exchange: Exchange) -> None:
        await _replied(world, exchange)
        await world.broker.stop()
        if not after_s:
            await exchange.pause(SOON_S)
            await world.broker.start()
        await exchange.send(exchange.content[n:])
        if after_s:
            await exchange.pause(after_s)
            await world.broker.start()
        back.set()

    with World(folder, scene) as world:
        world.web.behave = first_at(n, stops)
        task = begin(world, UNITS)
        world.until(back.is_set, "the broker is back")
        need(len(world.record.boots) == 1, "restarted, with something to say", world)
        ends(world, task, SUCCEEDED)
        need(len(world.web.requests) == 1, "the download broke", world)
        follow(world)


def _broker_leave(folder: Path, scene: Scene) -> None:
    """It stops in the download, and comes back after the restart."""

    async def stops(exchange: Exchange) -> None:
        await _replied(world, exchange)
        await world.broker.stop()
        await exchange.send(exchange.content[HALF:])

    with World(folder, scene) as world:
        world.web.behave = first_at(HALF, stops)
        task = begin(world, UNITS)
        starts(world, 2)
        time.sleep(WITHIN_S)
        call(world.broker.start())
        ends(world, task, SUCCEEDED)
        follow(world)


def _broker_trial(back: bool, folder: Path, scene: Scene) -> None:
    with World(folder, scene, more=HOLD) as world:
        task = begin(world)
        says(world, "on trial")
        call(world.broker.stop())
        go(world)
        time.sleep(WITHIN_S) if back else starts(world, 3)
        call(world.broker.start())
        ends(world, task, SUCCEEDED if back else NOT_CONNECTED)
        follow(world)


OUTAGES: dict[str, Outage] = {
    "refused/start": partial(_refused, False),
    "refused/middle": partial(_refused, True),
    "refused/ever": _refused_ever,
    "server/1.5": partial(_server, 1.5, SUCCEEDED),
    "server/5": partial(_server, 5, NO_CONNECTION),
    "broker/start": _broker_start,
    **{f"broker/fetch/{n}": partial(_broker_fetch, n, 0) for n in (0, 1, HALF, 70000)},
    "broker/after": partial(_broker_fetch, HALF, 3),
    "broker/leave": _broker_leave,
    "broker/trial/back": partial(_broker_trial, True),
    "broker/trial/away": partial(_broker_trial, False),
}
