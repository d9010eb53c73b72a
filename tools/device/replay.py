"""
Golden replay: does the simulated ESP32 answer as a real one's own code does?

Plays traces (one device a line) and image verdicts (one image a line), names each difference and
counts. Every answer comes from the very classes that a device process imports.
"""

import argparse
import gzip
import json
import sys
from pathlib import Path

from .layout import SIZE
from .port import appimage
from .port.flash import Flash
from .trace import VERBS, Device

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
_SHOWN = 200  # differences named, at most
_BLOCK = 4096
_SLOT = 0x10000  # where the image of a verdict stands alone, and how long the slot is
_REFUSED = -5379


class ReplayError(Exception):
    """A file that cannot be played: not readable, neither kind, an image that is not there."""


def verdict(image, generation):
    """What `set_boot()` says of image bytes alone at the start of an erased slot: 0 or -5379."""
    size = max(_SLOT, (len(image) + _BLOCK - 1) // _BLOCK * _BLOCK)
    flash = Flash(None, generation, max(SIZE, _SLOT + size))
    flash.poke(_SLOT, image)
    return 0 if appimage.verify(flash, _SLOT, size) else _REFUSED


def play(row, images):
    """
    Play one line of a file: yields (place, question, expected, got) for each answer in it.

    row: dict, a trace or a verdict; images: callable, name to bytes. Raises ReplayError for a line
    of neither kind; ValueError, LookupError, TypeError for a malformed one.
    """
    if "steps" in row:
        device = Device(row, images)
        for number, (verb, *arguments, expected) in enumerate(row["steps"]):
            if verb not in VERBS:
                raise ReplayError(f"step {number}: no verb {verb}")
            place = f"{row.get('name')} step {number}"
            yield place, [verb, *arguments], expected, device.answer(verb, *arguments)
    elif "image" in row and "set_boot" in row:
        image = bytes.fromhex(row["image"])
        place = f"image of {len(image)} bytes"
        for generation, expected in row["set_boot"].items():
            yield place, ["set_boot", generation], expected, verdict(image, generation)
    else:
        raise ReplayError("neither a trace (steps) nor a verdict (image, set_boot)")


def image_reader(folders):
    """Callable, name to bytes, that looks NAME.bin up in folders in turn; raises ReplayError."""
    known = {}

    def read(name):
        if name not in known:
            for folder in folders:
                path = Path(folder) / f"{name}.bin"
                if path.is_file():
                    known[name] = path.read_bytes()
                    break
            else:
                raise ReplayError(f"no image {name} in {', '.join(map(str, folders))}")
        return known[name]

    return read


def read_rows(path):
    """Lines of a .jsonl or .jsonl.gz file, each a dict. Raises ReplayError."""
    try:
        data = Path(path).read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, EOFError, ValueError) as error:
        raise ReplayError(f"{path}: {error}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise ReplayError(f"{path}: a line is not an object")
    return rows


def replay(paths, folder=None, out=print):
    """
    Play files and tell each difference through `out`: (answers, differing). Raises ReplayError.

    folder: where images are looked up first; then in `images` beside the file, then in our own.
    """
    answers = differ = 0
    for path in paths:
        folders = [Path(path).parent / "images", GOLDEN / "images"]
        images = image_reader([folder, *folders] if folder else folders)
        for number, row in enumerate(read_rows(path), 1):
            try:
                for place, question, expected, got in play(row, images):
                    answers += 1
                    if got == expected and isinstance(got, type(expected)):
                        continue
                    differ += 1
                    if differ <= _SHOWN:
                        asked = json.dumps(question)
                        out(f"{path}:{number}: {place} {asked}: expected {expected}, got {got}")
            except ReplayError as error:
                raise ReplayError(f"{path}:{number}: {error}") from error
            except (LookupError, TypeError, ValueError) as error:
                raise ReplayError(f"{path}:{number}: malformed: {error!r}") from error
    if differ > _SHOWN:
        out(f"... and {differ - _SHOWN} more")
    return answers, differ


def main(argv):
    """Exit status: 0 all answers agree; 1 one differs, or there is none; 2 a file is no good."""
    parser = argparse.ArgumentParser(
        prog="python -m tools device replay", description=__doc__.strip().splitlines()[0]
    )
    parser.add_argument("--images", metavar="DIR", help="where the images of traces lie")
    parser.add_argument("files", nargs="+", metavar="FILE", help="traces, image verdicts")
    options = parser.parse_args(argv)
    try:
        answers, differ = replay(options.files, options.images)
    except ReplayError as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2
    print(f"{answers} answers, {differ} differ")
    return 0 if answers and not differ else 1
