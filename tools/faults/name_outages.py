"""
Names have no address for a while: that of the file server, that of the broker.

OUTAGES: see outage.py.
"""

from functools import partial
from pathlib import Path

from .check import SUCCEEDED, need
from .outage import (
    HALF,
    HOLD,
    NO_CONNECTION,
    NOT_CONNECTED,
    Outage,
    begin_alone,
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

# The end of boot.py: names of the device's own, while there is no file `no-names`.
# -202: EAI_FAIL of lwIP.
_NAMES = (
    HOLD
    + """
class Names:
    def __getattr__(self, name):
        return getattr(socket, name)
    def getaddrinfo(self, host, *rest):
        if host.endswith(".invalid"):
            if exists("no-names"):
                print("no", host)
                raise OSError(-202)
            host = "127.0.0.1"
        return socket.getaddrinfo(host, *rest)
sys.modules["socket"] = Names()
MQTT_SERVER = "broker.invalid"
"""
)


class _Named(World):
    """Its servers have names."""

    def url_of(self, version: str) -> str:
        return super().url_of(version).replace("127.0.0.1", "files.invalid")


class _Unnamed(World):
    """The first file has a URL whose host no resolver takes: its label is one too long."""

    def url_of(self, version: str) -> str:
        url = super().url_of(version)
        return url.replace("127.0.0.1", "x" * 64 + ".invalid") if version == NEW else url


def _names(world: World, known: bool) -> None:
    file = world.device.fs / "no-names"
    file.unlink() if known else file.touch()


def _names_fetch(times: int, allowed: str | int, folder: Path, scene: Scene) -> None:
    """The file server's name is asked for so many times in vain."""
    with _Named(folder, scene, more=_NAMES) as world:
        go(world)
        halted = halt(world, HALF)
        task = begin(world, UNITS)
        halted()
        _names(world, known=False)
        world.do(world.web.drop)
        says(world, "no files.invalid", times)
        if allowed != SUCCEEDED:
            world.until(lambda: task.at_rest, "the download is given up")
        _names(world, known=True)
        ends(world, task, allowed)
        follow(world)


def _no_such_name(folder: Path, scene: Scene) -> None:
    with _Unnamed(folder, scene) as world:
        ends(world, begin(world), NO_CONNECTION)
        need(not world.web.requests, "the name has an address", world)
        follow(world)


def _names_start(folder: Path, scene: Scene) -> None:
    with _Named(folder, scene, more=_NAMES) as world:
        go(world)
        _names(world, known=False)
        task = begin_alone(world)
        says(world, "no broker.invalid", 2)
        _names(world, known=True)
        ends(world, task, SUCCEEDED)
        follow(world)


def _names_trial(back: bool, folder: Path, scene: Scene) -> None:
    with _Named(folder, scene, more=_NAMES) as world:
        task = begin(world)
        says(world, "on trial")
        _names(world, known=False)
        go(world)
        says(world, "no broker.invalid", 2) if back else starts(world, 3)
        _names(world, known=True)
        ends(world, task, SUCCEEDED if back else NOT_CONNECTED)
        follow(world)


OUTAGES: dict[str, Outage] = {
    "names/start": _names_start,
    "names/fetch/1": partial(_names_fetch, 1, SUCCEEDED),
    "names/fetch/ever": partial(_names_fetch, 2, NO_CONNECTION),
    "names/none": _no_such_name,
    "names/trial/back": partial(_names_trial, True),
    "names/trial/away": partial(_names_trial, False),
}
