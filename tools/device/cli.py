"""python -m tools device: make a simulated ESP32, run it, look into it; replay real traces."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from tools.image.archive import frozen
from tools.image.build import DESCRIPTOR, DESCRIPTOR_MAGIC

from . import replay
from .device import Device
from .layout import GENERATIONS
from .port import otadata

_STATES = {0: "new", 1: "pending", 2: "valid", 3: "invalid", 4: "aborted"}


def _device(args: argparse.Namespace, **options) -> Device:
    if args.idf not in GENERATIONS:
        raise ValueError(f"OTA_SIM_IDF={args.idf}: the boot loader is one of {GENERATIONS}")
    return Device(args.folder, generation=args.idf, **options)


def _create(args: argparse.Namespace) -> int:
    device = _device(args)
    if device.flash_path.exists() and not args.force:
        raise FileExistsError(f"{device.flash_path} is there already: another folder, or --force")
    device.create(args.image)
    for text in args.put:
        name, _, file = text.partition("=")
        device.put(name if file else Path(name).name, Path(file or name))
    return _info(args)


def _run(args: argparse.Namespace) -> int:
    on_line = lambda line: print(line, flush=True)  # noqa: E731
    with _device(args, on_line=on_line, serial=args.serial) as device:
        if not device.flash_path.exists():
            raise FileNotFoundError(f"{device.flash_path}: make it with `create`")
        # SIGTERM, too, takes the interpreter along.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        if args.serial:
            print(f"serial port {device.serial.path}", flush=True)
        device.start()
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            return 0


def _info(args: argparse.Namespace) -> int:
    device = _device(args)
    flash = device.open_flash()
    print(f"flash     {device.flash_path}")
    for label, kind, _, offset, size in flash.table:
        print(f"{label:9} {offset:#9x} {size // 1024:5} KiB  {_content(flash, kind, offset)}")
    for entry in otadata.read(flash) or []:
        if not otadata.blank(entry):
            state = _STATES.get(otadata.state(entry), "undefined")
            print(f"otadata   seq {otadata.seq(entry)}, {state}")
    flash.close()
    print("counters  " + ", ".join(f"{name} {n}" for name, n in device.counters.items()))
    return 0


def _content(flash, kind: int, offset: int) -> str:
    if kind:
        return ""
    fields = DESCRIPTOR.unpack(bytes(flash.read(offset + 32, DESCRIPTOR.size)))
    if fields[0] != DESCRIPTOR_MAGIC:
        return "no application"
    version = fields[2].rstrip(b"\0").decode(errors="replace")
    modules = frozen(lambda at, length: bytes(flash.read(offset + at, length)))
    return f"application, version {version or '(none)'}, frozen: {len(modules)} modules"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools device", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, about in (
        ("create", _create, "a new device: flash, filesystem"),
        ("run", _run, "power on; shows the console until Ctrl-C"),
        ("info", _info, "what lies in the flash"),
    ):
        command = commands.add_parser(name, help=about)
        command.set_defaults(run=run)
        command.add_argument("folder", type=Path, help="of the device")
        command.add_argument(
            "--idf",
            choices=GENERATIONS,
            default=os.environ.get("OTA_SIM_IDF") or "5.5",
            help="boot loader (default: OTA_SIM_IDF, else 5.5)",
        )
        if name == "run":
            command.add_argument(
                "--serial", action="store_true", help="with a serial port, for deploy and mpremote"
            )
        if name == "create":
            command.add_argument("--force", action="store_true", help="wipe the one that is there")
            command.add_argument("image", type=Path, help="application image for ota_0")
            command.add_argument(
                "--put",
                action="append",
                default=[],
                metavar="[NAME=]FILE",
                help="a file onto the filesystem, for example boot.py",
            )
    commands.add_parser("replay", help="traces of a real ESP32 against the model", add_help=False)
    return parser


def main(argv: list[str]) -> int:
    """Exit status: 0 done, 1 failed, 2 wrong arguments."""
    if argv[:1] == ["replay"]:
        return replay.main(argv[1:])
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (OSError, ValueError) as error:
        print(f"device: {error}", file=sys.stderr)
        return 1
