"""python -m tools deploy: put the device package onto a board, over its serial port."""

import argparse
import sys
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from tools.toolchain import ROOT

from . import files
from .board import probe
from .line import Line, LineError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools deploy",
        description="Puts ota/, boot.py and main.py onto a board that runs MicroPython's OTA "
        "variant, and restarts it. What it replaces stays there as .bak.",
    )
    parser.add_argument(
        "--port",
        default="auto",
        help="/dev/ttyUSB0, COM3, socket://host:port, rfc2217://host:port (default: the first "
        "serial port on USB)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of boot.py, for example WIFI_SSID=home",
    )
    parser.add_argument("--boot", type=Path, metavar="FILE", help="a boot.py with settings in it")
    parser.add_argument(
        "--main", type=Path, metavar="FILE", help="default: main.py of this folder"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="look, change nothing, restart the board"
    )
    return parser


def _wanted(options) -> dict[str, bytes]:
    wanted = files.package()
    main = (options.main or ROOT / "main.py").read_text(encoding="utf-8")
    wanted[files.MAIN] = files.check_source(files.MAIN, main).encode()
    return wanted


def _boot(options, line, there: bool) -> bytes | None:
    # boot.py as it shall be; None = that of the board stays. there: the board has one.
    settings = {}
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise files.DeployError(f"--set {text}: NAME=VALUE is needed")
        settings[name] = value
    if options.boot:
        text = options.boot.read_text(encoding="utf-8")
    elif not settings:
        return None
    else:
        text = (ROOT / "boot.py").read_text(encoding="utf-8")
        if there:  # what it was told before stays, unless it is asked for now
            text = files.carried(text, files.get(line, files.BOOT).decode(errors="replace"))
    return files.check_source(files.BOOT, files.boot(text, settings)).encode()


def _deploy(options) -> int:
    wanted, line = _wanted(options), Line(options.port)
    paths = [*wanted, files.BOOT]
    paths += [*files.sources(wanted), *files.leftovers(paths)]
    board = probe(line, paths)
    print(board.describe())
    try:
        return _put(options, line, board, wanted)
    finally:
        # To look at it, its program was stopped. One that was on trial is rolled back by this.
        line.run("restart")


def _put(options, line, board, wanted) -> int:
    if board.problems:
        for problem in board.problems:
            print(f"deploy: {problem}", file=sys.stderr)
        return 1
    there = bool(board.files[files.BOOT])
    boot = _boot(options, line, there)
    if boot:
        wanted[files.BOOT] = boot
    elif not there:
        raise files.DeployError(
            "the board has no boot.py: --set WIFI_SSID=... and so on, or --boot FILE"
        )
    plan = files.plan(board, wanted)
    for path in plan.new:
        old = ""
        if board.files[path]:
            kept = f"{path}.bak" in board.sizes
            old = f"; the one before is not kept, {path}.bak is older" if kept else ""
            old = old or f", the old one to {path}.bak"
        print(f"  {path}: {len(plan.new[path]):,} bytes{old}")
    for path in plan.gone:
        print(f"  {path}: to {path}.bak, it would win over the .mpy")
    print(f"  {len(plan.same)} files are there already")
    if board.frozen:
        print(
            "  the firmware that runs has the package frozen, which wins over these copies (as a "
            "frozen main.py does): to change that, upgrade it"
        )
    if options.dry_run:
        print("nothing was changed; the board restarts")
        return 0
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with Progress(*columns, disable=not sys.stdout.isatty()) as progress:
        task = progress.add_task("copying", total=plan.size)
        files.put(line, plan, lambda size: progress.advance(task, size))
    again = f", {line.broken} steps were done again" if line.broken else ""
    print(f"{len(plan.new)} files copied and compared{again}; the board restarts")
    return 0


def main(argv: list[str]) -> int:
    """Exit status: 0 done, 1 the board is not one that can be upgraded, 2 it could not be done."""
    options = _parser().parse_args(argv)
    try:
        return _deploy(options)
    except (files.DeployError, LineError) as error:
        print(f"deploy: {error}", file=sys.stderr)
    except (OSError, ValueError) as error:
        print(f"deploy: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("deploy: stopped half way: run it again", file=sys.stderr)
        return 130
    return 2
