"""
What is put onto a board, and how: the package as .mpy, boot.py with its settings, main.py.

New files come beside the old ones, piece by piece, are compared, and take their places together;
what was there stays as .bak.
"""

import ast
import base64
import hashlib
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.toolchain import ROOT, compile_mpy

from .board import Board, probe
from .line import Line, LineError

PACKAGE = "/lib/ota"
BOOT, MAIN = "/boot.py", "/main.py"
_NEW, _OLD = ".new", ".bak"
_LEVEL = 3  # of mpy-cross, as shipped
_PIECE = 1024  # bytes
_READ_MAX = 64 * 1024  # bytes: a boot.py is not longer
_BLOCK = 4096  # bytes: what littlefs gives a file
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
    boot.py with other settings. text: of a boot.py; settings: name to value, as text; it becomes
    what the setting is: text, a number, True or False, a tuple. Raises DeployError: a name that it
    has not, a value that cannot be, a needed one that is empty.
    """
    for name, value in settings.items():
        found = _assigned(text)
        if name not in found:
            known = ", ".join(key for key in found if key.isupper())
            raise DeployError(f"boot.py has no setting {name}: it has {known}")
        text = _replaced(text, name, _literal(name, value, found[name].value))
    found = {name: _value(node.value) for name, node in _assigned(text).items()}
    for name in NEEDED:
        if found.get(name) == "":
            raise DeployError(f"{name} is empty: --set {name}=..., or --boot FILE")
    for problem in _problems()(found):
        raise DeployError(problem)
    return text


def carried(text: str, board: str) -> str:
    """
    boot.py with the settings of the one on a board, as far as that has them. text: of ours; board:
    of the other. Raises DeployError: a setting there is computed.
    """
    ours = _assigned(text)
    for name, node in _assigned(board).items():
        if name not in ours or not name.isupper():
            continue
        try:
            value = ast.literal_eval(node.value)
        except ValueError as error:
            raise DeployError(
                f"{name} is computed in the board's boot.py: say --boot FILE, with all settings"
            ) from error
        if value != _value(ours[name].value):
            text = _replaced(text, name, repr(value))
    return text


def _replaced(text, name, literal):
    node = _assigned(text)[name]
    lines = text.splitlines(keepends=True)
    first, last = node.lineno - 1, node.value.end_lineno - 1
    rest = lines[last].encode()[node.value.end_col_offset :].decode()
    lines[first : last + 1] = [f"{name} = {literal}{rest}"]
    return "".join(lines)


def _problems():
    # What main.py says of settings, by main.py itself.
    tree = ast.parse((ROOT / "main.py").read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if getattr(node, "name", "") == "problems"]
    space: dict = {}
    exec(compile(tree, "main.py", "exec"), space)
    return space["problems"]


def check_source(path: str, text: str) -> str:
    """Returns the text of a Python file. Raises DeployError: it does not compile."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, path.rpartition("/")[2])
        source.write_text(text, encoding="utf-8")
        try:
            compile_mpy(source, source.with_suffix(".mpy"), _LEVEL)
        except ValueError as error:
            last = str(error).strip().splitlines()
            where = last[-2].strip() + ": " if len(last) > 1 else ""
            raise DeployError(f"{path} does not compile: {where}{last[-1]}") from error
    return text


def _assigned(text):
    # The last assignment of each name at the top, which is the one that counts.
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise DeployError(f"boot.py does not compile: {error}") from error
    return {
        node.targets[0].id: node
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


def _value(node):
    try:
        return ast.literal_eval(node)
    except ValueError:  # something that is computed
        return None


def _literal(name, value, node):
    # Of the type that the setting has: text stays text, whatever it looks like.
    was = _value(node)
    if isinstance(was, bool):
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if value.lower() not in words:
            raise DeployError(f"{name}={value}: True or False is needed")
        return repr(words[value.lower()])
    if isinstance(was, int):
        if not value.isdecimal():
            raise DeployError(f"{name}={value}: a number is needed")
        return value
    if isinstance(was, tuple):
        # As `sign keygen` prints it, or bare.
        return repr(tuple(re.findall(r"[^\s,()\"']+", value)))
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
    # Files take whole blocks. What a deploy that was cut has left is written over.
    needed = sum(_blocks(len(data)) for data in new.values())
    there = sum(_blocks(board.sizes.get(path + _NEW, 0)) for path in new)
    if new and needed + _SPARE > board.free + there:
        raise DeployError(
            f"{needed:,} bytes do not fit: the board has {board.free + there:,} free, and "
            f"{_SPARE:,} have to stay so. Remove something"
        )
    return found


def leftovers(files: dict[str, bytes]) -> list[str]:
    """What a deploy before, or one that was cut, may have left on a board."""
    return [path + end for path in files for end in (_NEW, _OLD)]


def _blocks(size):
    return -(-size // _BLOCK) * _BLOCK


def sources(files: dict[str, bytes]) -> list[str]:
    """The .py that would be taken for a .mpy of these."""
    return [path[:-4] + ".py" for path in files if path.endswith(".mpy")]


def get(line: Line, path: str) -> bytes:
    """A small file of the board, in pieces: its heap may be nearly full. Raises LineError."""
    data = b""
    while len(data) < _READ_MAX:
        piece = base64.b64decode(line.run("read", PATH=path, AT=len(data), SIZE=_PIECE))
        data += piece
        if len(piece) < _PIECE:
            break
    return data


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
    there = probe(line, list(wanted)).files
    for path, digest in wanted.items():
        if there[path] != digest:
            raise LineError(f"{path} on the board is not what was sent: run it again")
