"""
The network fails: connections break at every place of the body, are slow, are refused; servers,
names and Wi-Fi go away and come back.
"""

from pathlib import Path

from tools.faults import check, name_outages, server_outages, wifi_outages
from tools.faults.behaviours import cut_at, drip, first_at, reset_at, stall_at
from tools.faults.broker import Broker
from tools.faults.case import Group
from tools.faults.check import SUCCEEDED, need
from tools.faults.scene import NEW, SCENES, UNITS
from tools.faults.upgrade import begin
from tools.faults.web import Exchange
from tools.faults.world import World

_SCENES = (0, 3)
_OUTAGES = server_outages.OUTAGES | name_outages.OUTAGES | wifi_outages.OUTAGES

_BLOCK = 4096
_PLACES = (0, 1, 2047)  # in a block
_BODY = {"cut": cut_at, "reset": reset_at, "stall": stall_at}
_MQTT = {"drop": Broker.drop, "takeover": Broker.takeover}

# Of a download that may take 20 s: how long it would take.
_STALLED, _TOO_SLOW = 432, 437
_SLOW = {seconds: {SUCCEEDED} for seconds in (1, 7, 13)}
_SLOW |= {seconds: {_TOO_SLOW} for seconds in (27, 60, 600)}
_SLOW |= {30000: {_TOO_SLOW, _STALLED}}  # about a byte each second, as long as it waits for one


def _cases() -> list[str]:
    blocks = range(0, UNITS, _BLOCK)
    places = [n for block in blocks for place in _PLACES if (n := block + place) < UNITS]
    what = [f"{fault}/{n}" for fault in (*_BODY, *_MQTT) for n in places]
    what += [f"slow/{seconds}" for seconds in _SLOW] + list(_OUTAGES)
    return [f"network/{scene}/{one}" for scene in _SCENES for one in what]


def _run(name: str, folder: Path) -> None:
    _, number, what = name.split("/", 2)
    scene = SCENES[int(number)]
    if what in _OUTAGES:
        _OUTAGES[what](folder, scene)
        return
    fault, number = what.split("/")
    with World(folder, scene) as world:
        if fault == "slow":
            _slow(world, int(number))
        elif fault in _BODY:
            _body(world, fault, int(number))
        else:
            _mqtt(world, _MQTT[fault], int(number))
        world.web.behave = None
        check.follow(world)


def _body(world: World, fault: str, n: int) -> None:
    """The connection breaks at byte n."""
    world.web.behave = _BODY[fault](n)
    task = begin(world, UNITS)
    world.finish(task)
    check.outcome(world, task, {SUCCEEDED})
    check.resumed(world, n)


def _mqtt(world: World, end, n: int) -> None:
    """The other connection breaks there; the download goes on."""

    async def breaks(exchange: Exchange) -> None:
        end(world.broker)
        # Slower than the device connects again.
        for at in range(n, len(exchange.content), _BLOCK):
            await exchange.send(exchange.content[at : at + _BLOCK])
            await exchange.pause(0.05)

    world.web.behave = first_at(n, breaks)
    task = begin(world, UNITS)
    world.finish(task)
    check.outcome(world, task, {SUCCEEDED})
    need(len(world.web.requests) == 1, "the download broke", world)
    logins, boots = len(world.broker.logins), len(world.record.boots)
    need(logins > boots, f"{logins} logins in {boots} starts", world)


def _slow(world: World, seconds: int) -> None:
    content = world.serve(NEW)
    world.web.behave = drip(max(len(content) // seconds, 1))
    task = begin(world)
    world.finish(task)
    check.outcome(world, task, _SLOW[seconds])


GROUP = Group("network", "network", _cases, _run, sample=20)
