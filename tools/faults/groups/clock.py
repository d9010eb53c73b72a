"""
Time: a clock that nobody sets, that jumps by years; ticks that wrap, or pass the half of their
range, in all phases of an upgrade and in the middle of each of its waits.
"""

from dataclasses import dataclass, field
from pathlib import Path

from ota import protocol as p
from tools.faults import check
from tools.faults.behaviours import BEHAVIOURS, drip
from tools.faults.case import Group
from tools.faults.check import SUCCEEDED, need
from tools.faults.scene import NEW, OLD, SCENES, Scene
from tools.faults.world import OPTIONS, World

_EDGES = {"wrap": 1 << 30, "half": 1 << 29}  # of ticks_ms
_YEARS = (1970, 2000, 2001, 2037, 2099)
_NOW = 2026
_RATE = 24_000  # bytes a second from the file server: so that the download takes many polls

# In which image; before which poll of which kind, see _PLACES_PY.
_PLACES = [(OLD, "any", 1), (OLD, "up", 1), *[(OLD, "fetching", k) for k in (1, 2, 4)]]
_LEAVING = len(_PLACES)
_PLACES += [(OLD, "leaving", 1), (NEW, "any", 1), (NEW, "up", 1)]
_AHEAD = (1, 5, 20, 60)  # ms before the edge
_ROOM = 1500  # ms from the start of the ticks to the edge, for a device that waits for it


@dataclass
class Stall:
    """
    A wait of the agent. sweep: how many ms after a start the edge comes; behave: name of a
    file server's behaviour; options: for ota.init; lost: PUBACKs that do not come; tested:
    False = a self-test that never ends; allowed: the outcomes.
    """

    sweep: range
    behave: str = "200"
    options: str = OPTIONS
    lost: int = 0
    tested: bool = True
    allowed: set = field(default_factory=lambda: {SUCCEEDED})


_STALLS = {
    "none": Stall(range(10, 510, 10)),
    "body": Stall(range(50, 3050, 50), "silent in the body once"),
    "head": Stall(range(250, 5250, 250), "silent once"),
    "puback": Stall(range(1000, 12000, 1000), lost=1),
    "total": Stall(
        range(100, 2400, 100), "drips the body", "dict(total_s=2)", allowed={p._TOO_SLOW}
    ),
    "trial": Stall(
        range(100, 2600, 100), options="dict(trial_s=2)", tested=False, allowed={p._SELF_TEST}
    ),
}
_IDLE = range(250, 3250, 250)  # ms: between pings, each second

_PLACES_PY = """
import machine, sys, time
from firmware import VERSION
del sys.modules["firmware"]
VERSION_AT, KIND, K, EDGE, AHEAD, YEARS = %r
last = time.ticks_ms()
count = 0


def jump():
    year = YEARS.pop(0)
    machine.RTC().datetime((year, 1, 1, 0, 0, 0, 0, 0))
    print("jump", time.gmtime()[0] == year)


def step(agent, link):
    global count, last
    ticks = time.ticks_ms()
    if EDGE and last < EDGE and not last < ticks < EDGE and ticks != last:
        print("edge")
    last = ticks
    kinds = ["any"]
    if link.up:
        kinds.append("up")
    if agent.is_fetching():
        kinds.append("fetching")
    elif agent.fetch_finish():
        kinds.append("leaving")
    if VERSION != VERSION_AT or KIND not in kinds:
        return
    count += 1
    if count < K:
        return
    if AHEAD:
        while 0 < time.ticks_diff(EDGE - AHEAD & 0x3FFFFFFF, time.ticks_ms()) < 2000:
            time.sleep_ms(1)
    elif YEARS:
        jump()


print("year", time.gmtime()[0])
"""


def _cases() -> list[str]:
    names = [f"time/{scene}/unset" for scene in range(len(SCENES))]
    for place in range(len(_PLACES)):
        for scene in range(len(SCENES)):
            names += [f"time/{scene}/jump/{place}/{year}" for year in _YEARS]
            names += [f"time/{scene}/{edge}/{place}/{ms}" for edge in _EDGES for ms in _AHEAD]
    for edge in _EDGES:
        sweeps = [(what, ms) for what, stall in _STALLS.items() for ms in stall.sweep]
        sweeps += [("idle", ms) for ms in _IDLE]
        for number, (what, ms) in enumerate(sweeps):
            names.append(f"time/{number % len(SCENES)}/{edge}/{what}/{ms}")
    return names


def _run(name: str, folder: Path) -> None:
    _, number, kind, *rest = name.split("/")
    scene = SCENES[int(number)]
    if kind == "unset":
        _jump(folder, scene, 0, [], [2000, 2000])
    elif kind == "jump":
        # There, and at the next poll back again; the restart comes before that.
        place, year = int(rest[0]), int(rest[1])
        _jump(folder, scene, place, [year, _NOW][: 1 if place == _LEAVING else 2], None)
    elif rest[0].isdecimal():
        _at_edge(folder, scene, _EDGES[kind], int(rest[0]), int(rest[1]))
    elif rest[0] == "idle":
        _idle(folder, scene, _EDGES[kind], int(rest[1]))
    else:
        _swept(folder, scene, _EDGES[kind], _STALLS[rest[0]], int(rest[1]))


def _jump(
    folder: Path, scene: Scene, place: int, years: list[int], begun: list[int] | None
) -> None:
    more = _PLACES_PY % ((*_PLACES[place], 0, 0, years),)
    with World(folder, scene, more=more) as world:
        world.web.behave = drip(_RATE)
        _upgrade(world, {SUCCEEDED})
        lines = world.device.console
        need(lines.count("jump True") == len(years), "the clock did not jump", world)
        if begun:
            found = [int(line.split()[1]) for line in lines if line.startswith("year ")]
            need(found == begun, f"the clock was set: {found}", world)
        check.follow(world)


def _at_edge(folder: Path, scene: Scene, edge: int, place: int, ahead: int) -> None:
    more = _PLACES_PY % ((*_PLACES[place], edge, ahead, []),)
    with _world(folder, scene, edge - _ROOM, more) as world:
        world.web.behave = drip(_RATE)
        _upgrade(world, {SUCCEEDED})
        _follow(world)


def _swept(folder: Path, scene: Scene, edge: int, stall: Stall, ms: int) -> None:
    more = _PLACES_PY % ((OLD, "", 0, edge, 0, []),)
    if not stall.tested:
        more += f'if VERSION == {NEW!r}:\n    OPTIONS["self_test"] = lambda: None\n'
    with _world(folder, scene, edge - ms, more, stall.options) as world:
        world.web.behave = BEHAVIOURS[stall.behave][0]
        if stall.lost:  # that of the reply to the command
            world.device.start()
            world.settle()
            world.broker.lose_puback = stall.lost
        _upgrade(world, stall.allowed)
        world.web.behave = None
        _follow(world)


def _idle(folder: Path, scene: Scene, edge: int, ms: int) -> None:
    more = _PLACES_PY % ((OLD, "", 0, edge, 0, []),)
    more += "def begin(agent, link):\n    link.keepalive = 2\n"
    with _world(folder, scene, edge - ms, more) as world:
        world.device.start()
        world.until(lambda: "edge" in world.device.console, "the edge")
        pings = world.broker.pings
        world.until(lambda: world.broker.pings > pings + 1, "pings behind the edge")
        need(len(world.broker.logins) == 1, "it connected again", world)
        _upgrade(world, {SUCCEEDED})
        _follow(world)


def _world(folder: Path, scene: Scene, ticks: int, more: str, options: str = OPTIONS) -> World:
    return World(folder, scene, None, options, more, env={"OTA_SIM_TICKS": str(ticks)})


def _upgrade(world: World, allowed: set) -> None:
    task = world.offer(NEW)
    world.device.start()
    world.finish(task)
    check.outcome(world, task, allowed)


def _follow(world: World) -> None:
    world.until(lambda: "edge" in world.device.console, "the edge")
    check.follow(world)


GROUP = Group("time", "clock and ticks", _cases, _run, sample=30)
