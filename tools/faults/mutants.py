"""
Seeded bugs: small wrong changes of the agent and of the simulated device, each of which the
campaign has to catch. Who finds nothing in the good code shows by them that it can find something.

Each is tried in a copy of the tree: the cases that it names are played there, until one fails. A
case that fails in the good code, too, would catch anything, so it does not count.
"""

import random
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tools.faults import runner
from tools.faults.bugs import BUGS, Bug
from tools.faults.scene import SCENES, SMALL, UNITS
from tools.faults.upgrade import operations
from tools.toolchain import BUILD, ROOT

SAMPLE = 4  # of them, in `make test`
PREFIX = "bugs/"  # of their names

_WORKERS = 3
_MOST_S = 600  # for the cases of one bug
# The last three programs of boot records in an upgrade: what begins or ends with them.
_MARKS = {"set_boot": -3, "trial": -2, "confirm": -1}
_MARK = re.compile(r"\{(\w+)([+-]\d+)?\}")
_PARTS = ("ota", "tools", "boot.py", "main.py", "requirements.txt")


@dataclass
class Hunt:
    """
    What came of it. seeded: how many were tried; missed: names of those not caught, see names().
    """

    seeded: int
    missed: list[str]

    @property
    def caught(self) -> int:
        return self.seeded - len(self.missed)


def names() -> list[str]:
    """Of all, as the campaign prints them."""
    return [PREFIX + bug.name for bug in BUGS]


def named(name: str) -> Bug:
    """The one of such a name. Raises ValueError: there is none."""
    return BUGS[names().index(name)]


def chosen(seed: int, sample: bool = False) -> list[Bug]:
    """All of them, or a sample drawn by seed."""
    return random.Random(seed).sample(BUGS, SAMPLE) if sample else list(BUGS)


def numbered(case: str) -> str:
    """The name of a case, with numbers for its marks, see Bug."""
    if not _MARK.search(case):
        return case
    group, scene, *_ = case.split("/")
    done = operations(SCENES[int(scene)], UNITS if group == "cut" else SMALL)
    programs = [one.k for one in done if one.place == "otadata" and not one.erase]
    return _MARK.sub(lambda mark: str(programs[_MARKS[mark[1]]] + int(mark[2] or 0)), case)


def hunt(bugs: list[Bug], survived: Collection[str] = ()) -> Hunt:
    """
    Tries these. survived: names of cases that were played in the good code; the others are played
    there first. One that cannot be tried is missed, and told.
    """
    sound = set(survived)
    bugs = [replace(bug, cases=tuple(map(numbered, bug.cases))) for bug in bugs]

    def add(result: runner.Result) -> None:
        if not result.why:
            sound.add(result.name)

    def is_found(bug: Bug) -> bool:
        cases = tuple(case for case in bug.cases if case in sound)
        if not cases:  # a bug of the campaign, or of the good code
            print(f"{bug.name}: its cases fail without it, too", file=sys.stderr)
        try:
            return bool(cases) and is_caught(replace(bug, cases=cases))
        except Exception:  # an hour's other results are not lost for it
            traceback.print_exc()
            return False

    if unknown := {case for bug in bugs for case in bug.cases} - sound:
        runner.play_all(sorted(unknown), add)
    with ThreadPoolExecutor(_WORKERS) as pool:
        caught = list(pool.map(is_found, bugs))
    missed = [PREFIX + bug.name for bug, found in zip(bugs, caught, strict=True) if not found]
    return Hunt(len(bugs), missed)


def is_caught(bug: Bug) -> bool:
    """
    True when one of its cases fails. Raises ValueError: its text is not once in its file;
    SyntaxError; RuntimeError: the cases could not be played; TimeoutExpired.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        _copy(tree)
        _plant(bug, tree)
        command = [sys.executable, "-m", "tools", "faults", "--first", *map(numbered, bug.cases)]
        done = subprocess.run(command, cwd=tree, capture_output=True, timeout=_MOST_S, check=False)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{bug.name}: {done.stderr.decode()[-2000:]}")
        return done.returncode == 1


def _copy(tree: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    for part in _PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, tree / part, ignore=ignore)
        else:
            shutil.copy(ROOT / part, tree / part)
    (tree / "build").mkdir()
    (tree / "build" / "lib").symlink_to(BUILD / "lib")


def _plant(bug: Bug, tree: Path) -> None:
    path = tree / bug.file
    text = path.read_text(encoding="ascii")
    if text.count(bug.old) != 1:
        raise ValueError(f"{bug.name}: {bug.file} has {text.count(bug.old)} times {bug.old!r}")
    text = text.replace(bug.old, bug.new)
    compile(text, bug.file, "exec")  # what does not compile would be caught by anything
    path.write_text(text, encoding="ascii")
