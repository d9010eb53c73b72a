"""
Each behaviour of a file server, see behaviours.py: met by a small image and by a larger one, and
met by an upgrade that resumes.
"""

from pathlib import Path

from ota import protocol as p
from tools.faults import check
from tools.faults.answers import Behaviour
from tools.faults.behaviours import BEHAVIOURS, cut_at
from tools.faults.case import Group
from tools.faults.check import SUCCEEDED, need
from tools.faults.scene import SCENES, SMALL, UNITS
from tools.faults.upgrade import begin
from tools.faults.web import Exchange
from tools.faults.world import World

_CUT = 70000  # of UNITS: behind the journal's note
_SIZES = {"small": SMALL, "units": UNITS}

# The first connection is cut; "ever": all later ones meet the behaviour, "second": one does. What
# an upgrade comes to then is what the table says of one that has nothing yet, but for these.
_EVER: dict[str, str | set[int]] = {
    # Neither of the range that was asked for nor, without one, a 200.
    "206 of all of it, no range asked": {p._HTTP_STATUS},
    # It may be shorter than what is there already; if not, the digest is wrong, then the image.
    "gzip, no length": {p._LENGTH, p._NO_APPLICATION, p._DIGEST},
    # What is left is little.
    "drips the body": SUCCEEDED,
}
# Met once, these end it, as the server says for certain that there is no such file; after all
# others the next try has the good server. (401, 403 and 410: after a new URL.)
_FINAL = {
    "204 No Content",
    "304 Not Modified",
    "400 Bad Request",
    "404 Not Found",
    "418 I'm a teapot",
    "100 Continue first",
    "short file",
    "long file",
    "negative length",
    "length of 30 digits",
    "two lengths, the last wrong",
    "redirect, relative to the folder",
    "redirect, another scheme",
    "redirect, https",
    "redirect, nowhere",
    "redirect, empty",
    "gzip",
}

# What the names have of those that cut the first connection themselves, and of the others that no
# upgrade gets through with one request.
_RESUMES = ("resumed", "206, ", "206 of another", "200 to a range", "changes")
_AGAIN = (*_RESUMES, "once", "redirect ", "redirects")


def _has(name: str, words: tuple[str, ...]) -> bool:
    return any(word in name for word in words)


def _cases() -> list[str]:
    fresh = [name for name in BEHAVIOURS if not _has(name, _RESUMES)]
    names = dict.fromkeys(_SIZES, BEHAVIOURS)
    names |= {"ever": fresh, "second": [name for name in fresh if "once" not in name]}
    return [
        f"http/{scene}/{when}/{name}" for scene in (0, 3) for when in names for name in names[when]
    ]


def _run(name: str, folder: Path) -> None:
    _, scene, when, which = name.split("/", 3)
    behaviour, expected = BEHAVIOURS[which]
    resumes = when not in _SIZES
    if resumes:
        behaviour = _after_cut(behaviour, when == "ever")
    if when == "ever":
        expected = _EVER.get(which, expected)
    elif when == "second" and which not in _FINAL:
        expected = SUCCEEDED
    with World(folder, SCENES[int(scene)]) as world:
        world.web.behave = behaviour
        task = begin(world, _SIZES.get(when, UNITS))
        world.finish(task)
        check.outcome(world, task, {expected} if isinstance(expected, str) else expected)
        need(len(world.web.requests) > resumes + _has(which, _AGAIN), "not reached", world)
        if resumes:
            check.resumed(world, _CUT)
        if which == "200 to a range":
            need(len(world.web.requests) == 2, "fetched anew", world)
        world.web.behave = None
        check.follow(world)


def _after_cut(behaviour: Behaviour, ever: bool) -> Behaviour:
    """The first request is cut at _CUT; the second one meets it as if it were the first."""
    cut = cut_at(_CUT)

    async def behave(exchange: Exchange) -> None:
        if not exchange.number:
            await cut(exchange)
        elif ever or exchange.number == 1:
            exchange.number -= 1
            await behaviour(exchange)
        else:
            await exchange.good()

    return behave


GROUP = Group("http", "HTTP", _cases, _run, sample=20)
