"""
Seeded bugs: small wrong changes of the agent and of the simulated device, each of which the
campaign has to catch. Who finds nothing in the good code shows by them that it can find something.

Each is tried in a copy of the tree: the cases that it names are played there, until one fails.
"""

import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tools.faults.bugs import BUGS, Bug
from tools.toolchain import BUILD, ROOT

SAMPLE = 4  # of them, in `make test`

_WORKERS = 3
_MOST_S = 600  # for the cases of one bug
_PARTS = ("ota", "tools", "boot.py", "main.py", "requirements.txt")


@dataclass
class Hunt:
    """What came of it. seeded: how many were tried; missed: names of those not caught."""

    seeded: int
    missed: list[str]

    @property
    def caught(self) -> int:
        return self.seeded - len(self.missed)


def hunt(seed: int, sample: bool = False) -> Hunt:
    """
    Tries all of them, or a sample drawn by seed. Raises ValueError: one no longer fits the code.
    """
    bugs = random.Random(seed).sample(BUGS, SAMPLE) if sample else BUGS
    with ThreadPoolExecutor(_WORKERS) as pool:
        caught = list(pool.map(is_caught, bugs))
    missed = [bug.name for bug, found in zip(bugs, caught, strict=True) if not found]
    return Hunt(len(bugs), missed)


def is_caught(bug: Bug) -> bool:
    """
    True when one of its cases fails. Raises ValueError: its text is not once in its file;
    SyntaxError.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        _copy(tree)
        _plant(bug, tree)
        command = [sys.executable, "-m", "tools", "faults", "--first", *bug.cases]
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
