"""python -m tools sign: make keys, sign firmware, verify it."""

import argparse
import sys
from pathlib import Path

from . import keys
from .board import board_of
from .manifest import SEQUENCE_MAX, Manifest, Signed, digests

SUFFIX = ".manifest"  # behind the name of the firmware file


def _keygen(args: argparse.Namespace) -> None:
    key = keys.generate(args.key, args.bits)
    print(f"{args.key}: keep it, and a copy where no server is: who has it owns your devices.")
    print("For boot.py of each device:\n")
    print(f'PUBLIC_KEYS = ("{key.modulus}",)')


def _public(args: argparse.Namespace) -> None:
    print(keys.modulus_of(keys.load_public(args.key)))


def _sign(args: argparse.Namespace) -> None:
    key = keys.load_private(args.key)
    size, md5, sha256 = digests(args.path)
    manifest = Manifest(
        args.product,
        args.board or board_of(args.path),
        args.version,
        md5,
        size,
        sha256,
        args.sequence,
        args.downgrade_from,
    )
    target = args.output or args.path.with_name(args.path.name + SUFFIX)
    key.sign(manifest).write(target)
    print(f"{target}: {manifest}")


def _verify(args: argparse.Namespace) -> None:
    signed = Signed.read(args.manifest or args.path.with_name(args.path.name + SUFFIX))
    keys.verify(keys.load_public(args.key), signed)
    manifest = Manifest.parse(signed.manifest)
    manifest.check(digests(args.path))
    print(f"{args.path}: signed for {manifest.product}, board {manifest.board},")
    print(f"version {manifest.version}, sequence {manifest.sequence}")
    if manifest.back_from:
        print(f"a deliberate downgrade from sequence {manifest.back_from}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools sign", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("keygen", help="make a key; prints its public half for boot.py")
    command.set_defaults(run=_keygen)
    command.add_argument("key", type=Path, help="file to write, which is not there yet")
    command.add_argument(
        "--bits", type=int, choices=keys.BITS, default=keys.BITS[0], help="default: %(default)s"
    )
    command = commands.add_parser("public", help="print the public half of a key, for boot.py")
    command.set_defaults(run=_public)
    command.add_argument("key", help="a PEM file")
    command = commands.add_parser("sign", help="sign a firmware file")
    command.set_defaults(run=_sign)
    command.add_argument("path", type=Path, metavar="FILE", help="as devices download it")
    command.add_argument("--key", type=Path, required=True, help="the private key, a PEM file")
    command.add_argument("--product", required=True, help="product key")
    command.add_argument("--version", required=True, help="as it is announced")
    command.add_argument(
        "--sequence", type=int, required=True, help=f"higher than all before, to {SEQUENCE_MAX}"
    )
    command.add_argument("--board", help="BOARD of boot.py; default: the chip of the image")
    command.add_argument(
        "--downgrade-from",
        type=int,
        default=0,
        metavar="SEQUENCE",
        help="devices that have confirmed this one, and no higher one, may go down",
    )
    command.add_argument("-o", "--output", type=Path, help=f"default: FILE{SUFFIX}")
    command = commands.add_parser("verify", help="verify a signed firmware file")
    command.set_defaults(run=_verify)
    command.add_argument("path", type=Path, metavar="FILE")
    command.add_argument("--key", required=True, help="public key: PEM file, or hex digits")
    command.add_argument("--manifest", type=Path, help=f"default: FILE{SUFFIX}")
    return parser


def main(argv: list[str]) -> int:
    """Exit status: 0 done, 1 it was not, for the reason that is printed."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (OSError, ValueError) as error:
        print(f"sign: {error}", file=sys.stderr)
        return 1
    return 0
