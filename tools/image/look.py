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
from .kind import APPLICATION, COMBINED, kind, other

FILE_MAX = 128 << 20  # bytes: the largest flash of any of these chips
_DESCRIPTOR_AT = 32


class Image(NamedTuple):
    """
    chip: esptool's name, "" = unknown; version, project, idf: of the descriptor, the first two
    mostly empty; size in bytes; problem: "" = good.
    """

    chip: str
    version: str
    project: str
    idf: str
    size: int
    md5: str
    sha256: str
    frozen: list[str]
    problem: str


def look(path: Path | str) -> Image:
    """Reads a file. Raises as `read`; a bad image is no error, see `Image.problem`."""
    return look_at(read(Path(path)))


def read(path: Path) -> bytes:
    """All of a file. Raises ValueError: longer than any flash; OSError."""
    size = path.stat().st_size
    if size > FILE_MAX:
        raise ValueError(f"{path}: {size:,} bytes, and no flash has more than {FILE_MAX:,}")
    return path.read_bytes()


def look_at(data: bytes) -> Image:
    """Looks at what was read."""
    chip = _chip(data)
    problem = _problem(data, chip)
    return Image(
        chip,
        *_descriptor(data),
        len(data),
        hashlib.md5(data).hexdigest(),
        hashlib.sha256(data).hexdigest(),
        [] if problem else sorted(frozen(data)),
        problem,
    )


def length_at(data: bytes, at: int) -> int:
    """How long the image is that begins there, bytes. Raises ValueError: it is damaged or cut."""
    chip = _chip(data[at:])
    if not chip:
        raise ValueError("its header names no chip that esptool knows")
    image = _read(chip, data[at:])
    return image.data_length + (len(image.stored_digest) if image.append_digest else 0)


def _read(chip, data):
    try:
        return LoadFirmwareImage(chip, data)
    except (FatalError, EOFError, OSError, ValueError, IndexError, RuntimeError) as error:
        raise ValueError(f"damaged, or cut: {error}") from error


def _chip(data: bytes) -> str:
    if len(data) < HEADER.size or data[0] != MAGIC:
        return ""
    number = int.from_bytes(data[12:14], "little")
    for name, rom in CHIP_DEFS.items():
        if getattr(rom, "IMAGE_CHIP_ID", None) == number:
            return name
    return ""


def _descriptor(data: bytes) -> tuple[str, str, str]:
    part = data[_DESCRIPTOR_AT : _DESCRIPTOR_AT + DESCRIPTOR.size]
    if len(part) < DESCRIPTOR.size:
        return "", "", ""
    fields = DESCRIPTOR.unpack(part)
    if fields[0] != DESCRIPTOR_MAGIC:
        return "", "", ""
    texts = fields[2], fields[3], fields[6]
    return tuple(text.split(b"\0")[0].decode(errors="replace") for text in texts)


def _problem(data: bytes, chip: str) -> str:
    """Why a device would refuse it; "" = would not."""
    found = kind(data)
    if found == COMBINED:
        return (
            "the combined image (boot loader, table, application) of a first flash. Take the "
            "application alone: `image extract`"
        )
    if found != APPLICATION and data[:1] == bytes((MAGIC,)):
        return (
            "no application: it begins like an image, and has no descriptor at byte 32. Is it a "
            "boot loader, or a combined file without its table?"
        )
    if found != APPLICATION:
        what = other(data)
        return f"no image: {what}" if what else "no image: it does not begin with 0xE9"
    if not chip:
        return "the header names no chip that esptool knows"
    try:
        image = _read(chip, data)
    except ValueError as error:
        return str(error)
    if not image.append_digest:
        return "no SHA-256 appended"
    if image.checksum != image.calculate_checksum():
        return "damaged: the checksum does not fit"
    if image.stored_digest != image.calc_digest:
        return "damaged: the SHA-256 does not fit"
    if len(data) != image.data_length + len(image.stored_digest):
        more = len(data) - image.data_length - len(image.stored_digest)
        return f"{more} bytes after the end of the image. `image extract` cuts them off"
    return ""
