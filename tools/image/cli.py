"""python -m tools image: build, pack, extract and inspect firmware images."""

import argparse
import json
import sys
from pathlib import Path

from . import fit
from .firmware import SIZE, firmware, stock
from .kind import APPLICATION, COMBINED, combined, kind
from .look import length_at, look_at, read
from .pack import WINDOW, WINDOWS, Packed, is_packed, pack_file, told, unpack, write_new


def _build(args: argparse.Namespace) -> int:
    extra = dict(_module(text) for text in args.module)
    firmware(
        args.path, args.version, extra, app=args.app, lib=args.lib, chip=args.chip, size=args.size
    )
    return _inspect(args)


def _stock(args: argparse.Namespace) -> int:
    stock(args.path)
    return _inspect(args)


def _module(text: str) -> tuple[str, Path | None]:
    """NAME=FILE freezes FILE as NAME, NAME= leaves that one out."""
    name, _, file = text.partition("=")
    return name.replace(".", "/"), Path(file) if file else None


def _pack(args: argparse.Namespace) -> int:
    target = args.output or args.path.with_name(args.path.name + ".gz")
    packed = pack_file(args.path, target, WINDOWS[args.window], args.force)
    saved = 1 - packed.size / packed.inflated
    print(f"{target}: {packed.size:,} bytes of {packed.inflated:,}, {saved:.1%} saved")
    _show(_about_packed(packed))
    return 0


def _about_packed(packed: Packed) -> dict[str, str]:
    note = "" if packed.told else " (not told: the largest one is taken)"
    return {
        "window": f"{1 << packed.window:,} bytes{note}",
        "heap": f"{packed.heap:,} bytes more than a plain image, on the device",
        "MD5": packed.md5,
    }


def _show(about: dict[str, str]) -> None:
    for name, text in about.items():
        if text:
            print(f"{name:8} {text}")


def _inspect(args: argparse.Namespace) -> int:
    found, problem = _look(args.path, getattr(args, "table", None))
    if getattr(args, "json", False):
        print(json.dumps(found | {"problem": problem}, indent=1))
    else:
        print(f"{args.path}: {problem or 'good to upgrade with'}")
        _show({name: text for name, text in found.items() if isinstance(text, str)})
    return 1 if problem else 0


def _look(path: Path, table: Path | None, fits: bool = True) -> tuple[dict, str]:
    # What a file is, as words, and why nobody upgrades with it ("" = one may). fits: whether it
    # has to fit the table's slots, or MicroPython's.
    data = read(path)
    found: dict = {"file": "", "size": f"{len(data):,} bytes"}
    if is_packed(data):
        try:
            packed = told(data)
        except ValueError as error:
            return {"file": ".gz"} | found, str(error)
        found |= _about_packed(packed)
        data = unpack(data)
        found["inside"] = f"{len(data):,} bytes"
    image = look_at(data)
    what = kind(data)
    found["file"] = what + (" in a .gz" if "inside" in found else "")
    slot = fit.read_table(table).size if table else fit.SLOT
    problem = image.problem
    if what == COMBINED:
        whole = combined(data)
        found["flash at"] = f"{whole.base:#x}"
        found["holds"] = f"the application of {whole.label}, at byte {whole.at:,} of the file"
        inside = look_at(data[whole.at : whole.at + _length(data, whole.at)])
        about = {name: getattr(inside, name) for name in ("chip", "version", "project", "idf")}
        image = image._replace(**about)
    elif not problem and fits:
        problem = fit.problem(len(data), slot)
        about = table or "MicroPython's table for 4 MiB"
        found["slot"] = "" if problem else f"fits: {slot - len(data):,} bytes left ({about})"
    found |= {
        "chip": image.chip,
        "version": image.version or "(none in the descriptor)",
        "project": image.project or "(none in the descriptor)",
        "IDF": image.idf,
        "SHA-256": image.sha256,
        "frozen": " ".join(image.frozen),
    }
    found.setdefault("MD5", image.md5)
    if what not in (APPLICATION, COMBINED):
        for name in ("chip", "version", "project", "IDF"):
            del found[name]
    return found, problem


def _length(data: bytes, at: int) -> int:
    try:
        return length_at(data, at)
    except ValueError:
        return len(data) - at


def _extract(args: argparse.Namespace) -> int:
    data = read(args.path)
    if is_packed(data):
        data = unpack(data)
    whole = combined(data)
    if not whole and (kind(data) != APPLICATION or not (problem := look_at(data).problem)):
        problem = look_at(data).problem
        raise ValueError(f"{args.path}: {problem or 'it is the application already'}")
    at = whole.at if whole else 0  # an application with more behind it, as a slot holds it
    try:
        image = data[at : at + length_at(data, at)]
    except ValueError as error:
        raise ValueError(f"{args.path}: the application in it is {error}") from error
    if problem := look_at(image).problem:
        raise ValueError(f"{args.path}: the application in it is not good: {problem}")
    name = args.path.name.removesuffix(".gz").removesuffix(".bin")
    target = args.output or args.path.with_name(f"{name}.app-bin")
    write_new(target, image, args.force)
    args.path = target
    _inspect(args)
    return 0


def _check(args: argparse.Namespace) -> int:
    found, problem = _look(args.path, args.table, fits=args.table is not None)
    if args.port and not problem:
        problem = _board_says(args.port, args.path, found["chip"])
    print(f"{args.path}: {problem or 'yes, this board can be upgraded with it'}")
    return 1 if problem else 0


def _board_says(port: str, path: Path, chip: str) -> str:
    from tools.deploy.board import probe  # which needs a board, and mpremote
    from tools.deploy.line import Line, LineError

    line = Line(port)
    try:
        board = probe(line)
        line.run("restart")  # to look at it, its program was stopped
    except LineError as error:
        raise ValueError(error) from error
    data = read(path)
    packed = is_packed(data)
    if board.problem:
        return board.problem
    if chip != board.chip:
        return f"it is for {chip}, and the board is {board.chip or board.machine}"
    if packed and board.version < (1, 24):
        return "a .gz needs MicroPython 1.24 on the board: upload the image as it is"
    return fit.problem(len(unpack(data) if packed else data), board.slot)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools image", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("build", help="build the firmware of a version")
    command.set_defaults(run=_build)
    command.add_argument("path", type=Path, help="file to write")
    command.add_argument("version", help="firmware version, for example 1.1.0")
    command.add_argument("--app", type=Path, help="frozen as main (default: main.py)")
    command.add_argument("--lib", type=Path, help="folder with umqtt/ (default: build/lib)")
    command.add_argument("--chip", default="esp32")
    command.add_argument(
        "--size", type=int, default=SIZE, help="of the file, bytes (default: %(default)s)"
    )
    command.add_argument(
        "--module",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="freeze one more module, or another one; NAME= leaves it out",
    )
    command = commands.add_parser("stock", help="build one as flashed first: MicroPython alone")
    command.set_defaults(run=_stock)
    command.add_argument("path", type=Path, help="file to write")
    command = commands.add_parser("pack", help="write an image as .gz, which a device inflates")
    command.set_defaults(run=_pack)
    command.add_argument("path", type=Path, metavar="FILE", help="the application image")
    command.add_argument("-o", "--output", type=Path, help="default: FILE.gz")
    command.add_argument(
        "--window",
        choices=WINDOWS,
        default=WINDOW,
        help="of the inflater, in the device's heap (default: %(default)s); larger saves more",
    )
    command.add_argument("--force", action="store_true", help="write over a file that is there")
    command = commands.add_parser("extract", help="the application out of a combined image")
    command.set_defaults(run=_extract)
    command.add_argument("path", type=Path, metavar="FILE", help="the combined image, or its .gz")
    command.add_argument("-o", "--output", type=Path, help="default: FILE.app-bin")
    command.add_argument("--force", action="store_true", help="write over a file that is there")
    command = commands.add_parser(
        "inspect", help="what a file is; exit status 1 when it is not one to upgrade with"
    )
    command.set_defaults(run=_inspect)
    command.add_argument("path", type=Path, metavar="FILE")
    command.add_argument("--table", type=Path, metavar="CSV", help="partition table it has to fit")
    command.add_argument("--json", action="store_true")
    command = commands.add_parser(
        "check", help="can this board, or this partition table, be upgraded with it?"
    )
    command.set_defaults(run=_check)
    command.add_argument("path", type=Path, metavar="FILE")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("--table", type=Path, metavar="CSV", help="partition table, CSV or binary")
    which.add_argument("--port", help="of the board: /dev/ttyUSB0, socket://host:port, ...")
    return parser


def main(argv: list[str]) -> int:
    """Exit status: 0 done, 1 the image is not good or could not be built."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (OSError, ValueError) as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
