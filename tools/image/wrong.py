"""Files that are offered as an upgrade and are none: what a device has to refuse."""

import random
from pathlib import Path

from .build import build, filler, seal

# A combined file is what people flash first, from this address of the flash on.
COMBINED_AT = 0x1000
_TABLE_AT = 0x8000
_APPLICATION_AT = 0x10000
# Where its segments lie in memory: an application may not load there.
_BOOT_LOADER = (0x3FFF0030, 0x40078000, 0x40080400)


def combined(path: Path | str, application: Path | str, table: bytes) -> Path:
    """
    Boot loader, partition table (binary, at most 4 KiB) and application in one file. Begins with
    0xE9, boots nowhere.
    """
    rng = random.Random(0)
    segments = [(address, filler(0x1000, rng)) for address in _BOOT_LOADER]
    loader = seal(segments, "esp32", entry=_BOOT_LOADER[-1])
    data = bytearray(b"\xff" * (_APPLICATION_AT - COMBINED_AT))
    data[: len(loader)] = loader
    data[_TABLE_AT - COMBINED_AT : _TABLE_AT - COMBINED_AT + len(table)] = table
    path = Path(path)
    path.write_bytes(data + Path(application).read_bytes())
    return path


def other_chip(path: Path | str, chip: str = "esp32s3") -> Path:
    """A good image for another chip."""
    return build(path, {"main": "print('other chip')"}, chip=chip)


def flipped(path: Path | str, image: Path | str, offset: int = 0x200, bit: int = 0) -> Path:
    """A copy of an image with one bit the other way round: the hash does not fit."""
    data = bytearray(Path(image).read_bytes())
    data[offset] ^= 1 << bit
    path = Path(path)
    path.write_bytes(data)
    return path


def text(path: Path | str) -> Path:
    """No image at all."""
    path = Path(path)
    path.write_text("This is no firmware.\n" * 100, encoding="ascii")
    return path
