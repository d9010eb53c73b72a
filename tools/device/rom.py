"""
What the interpreter of a simulated device imports: the frozen modules of a slot, and the
hardware's modules.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from tools.image.archive import compiled, frozen
from tools.toolchain import BUILD

from .port.flash import Flash

PORT = Path(__file__).with_name("port")
_MAIN = ("boot.mpy", "main.mpy")


def _lay_down(folder: Path, files: Mapping[str, bytes]) -> None:
    """Makes a folder with these files in it, whole or not at all; nothing when it is there."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent))
    for name, data in files.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    try:
        made.rename(folder)
    except OSError:  # somebody else was first
        shutil.rmtree(made)


def _digest(files: Mapping[str, bytes]) -> str:
    content = hashlib.sha256()
    for name in sorted(files):
        content.update(f"{name} {len(files[name])} ".encode() + files[name])
    return content.hexdigest()[:16]


@lru_cache(maxsize=1)
def compiled_port() -> Path:
    """
    The hardware's modules as .mpy: compiled on the device they would take heap that a board has
    free.
    """
    return _compiled("port", PORT)


@lru_cache(maxsize=1)
def compiled_os() -> Path:
    """The module `os` of a board, for devices with a REPL."""
    return _compiled("repl", PORT.with_name("repl"))


def _compiled(name: str, source: Path) -> Path:
    files = {f"{path.stem}.mpy": compiled(path.stem, path) for path in source.glob("*.py")}
    folder = BUILD / name / _digest(files)
    if not os.access(BUILD if BUILD.exists() else BUILD.parent, os.W_OK):
        folder = Path(tempfile.gettempdir(), f"{name}-{os.getuid()}", folder.name)
    _lay_down(folder, files)
    return folder


def extract(flash: Flash, label: str, cache: Path) -> Path:
    """
    The folder `.frozen` for the image in a slot, below cache.

    Raises ValueError: the archive in the image is damaged.
    """
    row = {row[0]: row for row in flash.table}[label]
    files = frozen(lambda at, length: bytes(flash.read(row[3] + at, length)))
    # What runs as main must be found by a name that no file hides; see port/_start.py.
    files |= {"_frozen_" + name: files[name] for name in _MAIN if name in files}
    folder = cache / _digest(files) / ".frozen"
    _lay_down(folder, files)
    return folder
