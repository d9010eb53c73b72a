"""
What is put onto a board, and how: the package as .mpy, boot.py with its settings, main.py.

New files come beside the old ones, piece by piece, are compared, and take their places together;
what was there stays as .bak.
"""

import ast
import hashlib
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.toolchain import ROOT, compile_mpy

from .board import Board
from .line import Line, LineError

PACKAGE = "/lib/ota"
BOOT, MAIN = "/boot.py", "/main.py"
_NEW, _OLD = ".new", ".bak"
_LEVEL = 3  # of mpy-cross, as shipped
_PIECE = 1024  # bytes
_SPARE = 32 * 1024  # bytes of the filesystem that stay free: littlefs needs some

# The settings without which nothing runs, see main.py.
NEEDED = ("WIFI_SSID", "MQTT_SERVER", "PRODUCT_KEY", "IDENTIFIER", "DEVICE_SECRET")


class DeployError(Exception):
    """What cannot be deployed, in a sentence."""


@dataclass
class Plan:
    """new: path to content, of those that differ from the board's; same: paths; gone: to .bak."""

    new: dict[str, bytes]
    same: list[str]
    gone: list[str]

    @property
    def size(self) -> int:
        return sum(map(len, self.new.values()))


def package() -> dict[str, bytes]:
    """The files of ota/ as .mpy: path on the board to content."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted((ROOT / "ota").glob("*.py")):
            target = Path(folder, f"{source.stem}.mpy")
            compile_mpy(source, target, _LEVEL)
            found[f"{PACKAGE}/{target.name}"] = target.read_bytes()
    return found


def bytecode(files: dict[str, bytes]) -> int:
    """The version of .mpy files, which is that of their compiler."""
    return next(data[1] for path, data in files.items() if path.endswith(".mpy"))


def boot(text: str, settings: dict[str, str]) -> str:
    """
    boot.py with other settings. text: of a boot.py; settings: name to value, a Python literal or
    plain text. Raises DeployError: a name that it has not, a needed one that is empty.
    """
    for name, value in settings.items():
        pattern = re.compile(rf"^{re.escape(name)} = (.*?)(  #.*)?$", re.MULTILINE)
        if not re.fullmatch("[A-Z_]+", name) or not (found := pattern.search(text)):
            known = ", ".join(re.findall(r"^([A-Z_]+) = ", text, re.MULTILINE))
            raise DeployError(f"boot.py has no setting {name}: it has {known}")
        was = found[1]
        line = f"{name} = {_literal(value, was)}{found[2] or ''}"
        text = text[: found.start()] + line + text[found.end() :]
    for name in NEEDED:
        if re.search(rf"""^{name} = (""|'')""", text, re.MULTILINE):
            raise DeployError(f"{name} is empty: --set {name}=..., or --boot FILE")
    return text


def _literal(value, was):
    # Text stays text, whatever it looks like, where the setting is text.
    if was.startswith(('"', "'")):
        return repr(value)
    try:
        return repr(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return repr(value)


def plan(board: Board, files: dict[str, bytes]) -> Plan:
    """files: path to content. Raises DeployError: they do not fit."""
    if board.mpy != bytecode(files):
        raise DeployError(
            f"its firmware reads .mpy of version {board.mpy}, and this compiler writes version "
            f"{bytecode(files)}: install an mpy-cross of MicroPython "
            f"{'.'.join(map(str, board.version))}"
        )
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    new = {path: data for path, data in files.items() if board.files.get(path) != digests[path]}
    # A .py beside a .mpy wins.
    gone = [path for path in sources(files) if board.files.get(path)]
    found = Plan(new, [path for path in files if path not in new], gone)
    if found.size + _SPARE > board.free:
        raise DeployError(
            f"{found.size:,} bytes do not fit: the board has {board.free:,} free, and {_SPARE:,} "
            "have to stay so. Remove something"
        )
    return found


def sources(files: dict[str, bytes]) -> list[str]:
    """The .py that would be taken for a .mpy of these."""
    return [path[:-4] + ".py" for path in files if path.endswith(".mpy")]


def put(line: Line, found: Plan, told: Callable[[int], None] = lambda size: None) -> None:
    """
    Carries out a plan. told: called with the bytes of each piece that is on the board. Raises
    LineError.
    """
    for path, data in found.new.items():
        for at in range(0, max(1, len(data)), _PIECE):
            piece = data[at : at + _PIECE]
            line.run("piece", PATH=path + _NEW, AT=at, DATA=piece)
            told(len(piece))
    news = {path + _NEW: hashlib.sha256(data).hexdigest() for path, data in found.new.items()}
    _compare(line, news)
    moves = [("", path, path + _OLD) for path in found.gone]
    # Those that start it come last.
    order = sorted(found.new, key=lambda path: (path in (BOOT, MAIN), path))
    moves += [(path + _NEW, path, path + _OLD) for path in order]
    if moves:
        line.run("swap", MOVES=moves)
    _compare(line, {path[: -len(_NEW)]: digest for path, digest in news.items()})


def _compare(line, wanted):
    from .board import probe

    there = probe(line, list(wanted)).files
    for path, digest in wanted.items():
        if there[path] != digest:
            raise LineError(f"{path} on the board is not what was sent: run it again")
