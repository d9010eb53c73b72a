"""python -m tools image: build, pack and inspect firmware images."""

import argparse
import sys
import tempfile
from pathlib import Path

from .firmware import SIZE, firmware
from .look import look
from .pack import WINDOW, WINDOWS, Packed, is_packed, pack_file, told, unpack


def _build(args: argparse.Namespace) -> int:
    extra = dict(_module(text) for text in args.module)
    firmware(
        args.path, args.version, extra, app=args.app, lib=args.lib, chip=args.chip, size=args.size
    )
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
    _tell(packed)
    return 0


def _tell(packed: Packed) -> None:
    note = "" if packed.told else " (not told: the largest one is taken)"
    print(f"window   {1 << packed.window:,} bytes{note}")
    print(f"heap     {packed.heap:,} bytes more than a plain image, on the device")
    print(f"MD5      {packed.md5}")


def _inspect(args: argparse.Namespace) -> int:
    data = args.path.read_bytes()
    if is_packed(data):
        return _inspect_packed(args.path, data)
    image = look(args.path)
    print(f"{args.path}: {image.problem or 'valid'}")
    print(f"chip     {image.chip or 'unknown'}")
    print(f"version  {image.version or '(none in the descriptor)'}")
    print(f"project  {image.project or '(none in the descriptor)'}")
    print(f"size     {image.size:,} bytes")
    print(f"MD5      {image.md5}")
    print(f"SHA-256  {image.sha256}")
    if image.frozen:
        print(f"frozen   {' '.join(image.frozen)}")
    return 1 if image.problem else 0


def _inspect_packed(path: Path, data: bytes) -> int:
    packed = told(data)
    print(f"{path}: a .gz of {packed.size:,} bytes")
    _tell(packed)
    print("inside:")
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder, path.stem)
        inside.write_bytes(unpack(data))
        return _inspect(argparse.Namespace(path=inside))


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
    command = commands.add_parser(
        "inspect", help="what a file is, exit status 1 when it is no good image"
    )
    command.set_defaults(run=_inspect)
    command.add_argument("path", type=Path, metavar="FILE")
    return parser


def main(argv: list[str]) -> int:
    """Exit status: 0 done, 1 the image is not good or could not be built."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (OSError, ValueError) as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
