"""
What a file is, when somebody offers it as firmware: the image to upgrade with, the combined one of
a first flash, or something else. Pure but for esptool's and esp-idf-defs' readers.
"""

from typing import NamedTuple

from esp_idf_defs import PartitionTable
from esp_idf_defs.partitions import PARTITION_TABLE_OFFSET, InputError

from .build import DESCRIPTOR_MAGIC, MAGIC

APPLICATION, COMBINED, OTHER = "application image", "combined image", "other"

_DESCRIPTOR_AT = 32
_SECTOR = 0x1000
_TABLE_MAGIC = b"\xaa\x50"
_TABLE_SIZE = 0xC00
_IN_TEXT = bytes({*range(32, 127), *b"\t\n\r\f"})

# What begins like this: (from here on, these bytes, what it is, what to do).
_BEGINNINGS = (
    (0, b"\x7fELF", "an ELF file, as the linker writes it", "Take the .bin or .app-bin beside it"),
    (0, b"UF2\n", "a UF2 file, which other chips are flashed with", "Take the .bin or .app-bin"),
    (0, b"PK\3\4", "a zip archive", "Unpack it, and take the .bin or .app-bin in it"),
    (0, b"\xfd7zXZ\0", "an xz archive", "Unpack it first"),
    (0, b"BZh", "a bzip2 archive", "Unpack it first"),
    (257, b"ustar", "a tar archive", "Unpack it, and take the .bin or .app-bin in it"),
    (0, b"M\x06", "a module of MicroPython (.mpy)", "Freeze it into a firmware, and take that"),
    (0, b"M\x05", "a module of MicroPython (.mpy)", "Freeze it into a firmware, and take that"),
    (0, _TABLE_MAGIC, "a partition table", "Take the application: .app-bin, micropython.bin"),
    (0, b":10", "an Intel HEX file", "Take the .bin or .app-bin"),
)


class Combined(NamedTuple):
    """
    A file with all of a first flash. base: address in flash of its first byte; at, room: where in
    the file its application begins, and bytes of its slot; label: of that slot.
    """

    base: int
    at: int
    room: int
    label: str
    table: PartitionTable


def kind(data: bytes) -> str:
    """APPLICATION, COMBINED or OTHER; of what is inside, when it is a .gz."""
    if data[:1] == bytes((MAGIC,)) and _has_descriptor(data, 0):
        return APPLICATION
    return COMBINED if combined(data) else OTHER


def combined(data: bytes) -> Combined | None:
    """What is where in a combined image; None = it is none."""
    for at in range(0, min(len(data), 2 * PARTITION_TABLE_OFFSET), _SECTOR):
        if data[at : at + 2] != _TABLE_MAGIC:
            continue
        try:
            table = PartitionTable.from_binary(data[at : at + _TABLE_SIZE])
        except InputError:
            continue
        base = PARTITION_TABLE_OFFSET - at
        for row in table:
            begin = row.offset - base
            if row.type == 0 and begin > 0 and _has_descriptor(data, begin):
                return Combined(base, begin, row.size, row.name, table)
    return None


def other(data: bytes) -> str:
    """What a file is that is no image, in a sentence; "" = nobody knows."""
    if not data:
        return "an empty file"
    for at, begin, what, cure in _BEGINNINGS:
        if data[at : at + len(begin)] == begin:
            return f"{what}. {cure}"
    if not data.strip(b"\xff"):
        return "erased flash: nothing but 0xFF"
    head = data[:_SECTOR]
    if not head.translate(None, _IN_TEXT):
        return "a text file"
    return ""


def _has_descriptor(data, at):
    magic = data[at + _DESCRIPTOR_AT : at + _DESCRIPTOR_AT + 4]
    return data[at : at + 1] == bytes((MAGIC,)) and magic == DESCRIPTOR_MAGIC.to_bytes(4, "little")
