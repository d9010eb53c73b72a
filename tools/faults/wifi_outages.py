"""
Wi-Fi goes away: what the device asks its radio says so, and its relays carry nothing.

OUTAGES: see outage.py.
"""

import time
from functools import partial
from pathlib import Path

from tools.device.port.flash import Flash

from . import check
from .check import SUCCEEDED, need
from .outage import (
    EXISTS,
    HALF,
    HOLD,
    NO_CONNECTION,
    NOT_CONNECTED,
    SELF_TEST,
    SOON_S,
    WITHIN_S,
    Outage,
    ends,
    follow,
    go,
    halt,
    says,
    starts,
)
from .scene import NEW, UNITS, Scene
from .upgrade import begin
from .world import World

# The end of boot.py: a self-test that passes when there is a file `go`.
_TEST = (
    EXISTS
    + """
asked = []
def test():
    if exists("go"):
        return True
    if not asked:
        asked.append(True)
        print("asked")
OPTIONS["self_test"] = test
"""
)


def _wifi_start(line: str, folder: Path, scene: Scene) -> None:
    """It comes back some time after this line of boot.py, or while boot.py waits."""
    with World(folder, scene, relays=True) as world:
        world.device.link(False)
        world.device.start()
        if line:
            says(world, line)
        time.sleep(WITHIN_S)
        need(not world.broker.logins, "connected without Wi-Fi", world)
        task = world.offer(NEW, UNITS)
        world.device.link(True)
        ends(world, task, SUCCEEDED)
        follow(world)


def _wifi_fetch(n: int, seconds: float, allowed: str | int, folder: Path, scene: Scene) -> None:
    """It is away from byte n on, for so long."""
    with World(folder, scene, relays=True) as world:
        halted = halt(world, n)
        task = begin(world, UNITS)
        halted()
        world.device.link(False)
        time.sleep(seconds)
        world.device.link(True)
        ends(world, task, allowed)
        if allowed == SUCCEEDED:
            check.resumed(world, n)
        follow(world)


def _quiet(world: World) -> None:
    """Nothing is heard for some time, as there is no link; then that is back."""
    time.sleep(SOON_S)  # what was on its way arrives
    heard = len(world.record.heard)
    time.sleep(WITHIN_S)
    need(len(world.record.heard) == heard, "heard without Wi-Fi", world)
    world.device.link(True)


class _Dark(World):
    """Wi-Fi goes with the first restart."""

    def _boot(self, flash: Flash, label: str | None, cause: int) -> None:
        if len(self.record.boots) == 1:
            self.device.link(False)
        super()._boot(flash, label, cause)


def _wifi_restart(folder: Path, scene: Scene) -> None:
    with _Dark(folder, scene, relays=True) as world:
        task = begin(world)
        starts(world, 2)
        _quiet(world)
        ends(world, task, SUCCEEDED)
        follow(world)


def _wifi_trial(back: bool, folder: Path, scene: Scene) -> None:
    """It goes when the trial has begun, before the broker is reached."""
    with World(folder, scene, more=HOLD, relays=True) as world:
        task = begin(world)
        says(world, "on trial")
        world.device.link(False)
        go(world)
        if back:
            _quiet(world)
        else:
            starts(world, 3)
            world.device.link(True)
        ends(world, task, SUCCEEDED if back else NOT_CONNECTED)
        follow(world)


def _wifi_test(seconds: float, folder: Path, scene: Scene) -> None:
    """It goes in the self-test, which passes all the same; or, 0 s, does not come to an end."""
    with World(folder, scene, more=_TEST, relays=True) as world:
        task = begin(world)
        says(world, "asked")
        world.device.link(False)
        if seconds:
            go(world)
            time.sleep(seconds)
        else:
            starts(world, 3)
        world.device.link(True)
        ends(world, task, SUCCEEDED if seconds else SELF_TEST)
        go(world)
        follow(world)


_NO_WIFI = "boot.py: no Wi-Fi yet (home), going on without"


OUTAGES: dict[str, Outage] = {
    "wifi/start/back": partial(_wifi_start, ""),
    "wifi/start/late": partial(_wifi_start, _NO_WIFI),
    **{
        f"wifi/fetch/{n}/{seconds}": partial(_wifi_fetch, n, seconds, allowed)
        for n in (0, 1, HALF, 65536, 70000, UNITS - 1)
        for seconds, allowed in ((0.2, SUCCEEDED), (1.5, SUCCEEDED), (5, NO_CONNECTION))
    },
    "wifi/restart": _wifi_restart,
    "wifi/trial/back": partial(_wifi_trial, True),
    "wifi/trial/away": partial(_wifi_trial, False),
    "wifi/test/1": partial(_wifi_test, 1),
    "wifi/test/7": partial(_wifi_test, 7),
    "wifi/test/ever": partial(_wifi_test, 0),
}
