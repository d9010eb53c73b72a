"""
What an image file says of itself, and whether it is one to upgrade with. On esptool's reader.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

from esptool.bin_image import LoadFirmwareImage
from esptool.targets import CHIP_DEFS
from esptool.util import FatalError

from .archive import frozen
from .build import DESCRIPTOR, DESCRIPTOR_MAGIC, HEADER, MAGIC

_DESCRIPTOR_AT = 32


class Image(NamedTuple):
    """
    chip: esptool's name, "" = unknown; version, project: of the descriptor, mostly empty; size
    in bytes; problem: "" = good.
    """

    chip: str
    version: str
    project: str
    size: int
    md5: str
    sha256: str
    frozen: list[str]
    problem: str


def look(path: Path | str) -> Image:
    """Reads a file. Raises OSError; a bad image is no error, see `Image.problem`."""
    data = Path(path).read_bytes()
    chip = _chip(data)
    version, project = _descriptor(data)
    problem = _problem(data, chip)
    return Image(
        chip,
        version,
        project,
        len(data),
        hashlib.md5(data).hexdigest(),
        hashlib.sha256(data).hexdigest(),
        [] if problem else sorted(frozen(data)),
        problem,
    )


def _chip(data: bytes) -> str:
    if len(data) < HEADER.size or data[0] != MAGIC:
        return ""
    number = int.from_bytes(data[12:14], "little")
    for name, rom in CHIP_DEFS.items():
        if getattr(rom, "IMAGE_CHIP_ID", None) == number:
            return name
    return ""


def _descriptor(data: bytes) -> tuple[str, str]:
    part = data[_DESCRIPTOR_AT : _DESCRIPTOR_AT + DESCRIPTOR.size]
    if len(part) < DESCRIPTOR.size:
        return "", ""
    fields = DESCRIPTOR.unpack(part)
    if fields[0] != DESCRIPTOR_MAGIC:
        return "", ""
    return tuple(field.split(b"\0")[0].decode(errors="replace") for field in fields[2:4])


def _problem(data: bytes, chip: str) -> str:
    """Why a device would refuse it; "" = would not."""
    if not data or data[0] != MAGIC:
        return "no image: it does not begin with 0xE9"
    if not chip:
        return "the header names no chip that esptool knows"
    if data[_DESCRIPTOR_AT : _DESCRIPTOR_AT + 4] != DESCRIPTOR_MAGIC.to_bytes(4, "little"):
        return (
            "no application: is this the combined file (boot loader, table, application)? "
            "Take the application alone"
        )
    try:
        image = LoadFirmwareImage(chip, data)
    except (FatalError, EOFError, OSError, ValueError, IndexError) as error:
        return f"damaged: {error}"
    if not image.append_digest:
        return "no SHA-256 appended"
    if image.checksum != image.calculate_checksum():
        return "damaged: the checksum does not fit"
    if image.stored_digest != image.calc_digest:
        return "damaged: the SHA-256 does not fit"
    if len(data) != image.data_length + len(image.stored_digest):
        return f"{len(data) - image.data_length - 32} bytes after the end of the image"
    return ""
