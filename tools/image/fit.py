"""
Does an image fit: the slots of a partition table, and the chip of a board.

A table is a CSV of ESP-IDF, or the binary form; esp-idf-defs reads both.
"""

from pathlib import Path
from typing import NamedTuple

from esp_idf_defs import PartitionTable
from esp_idf_defs.partitions import InputError

SLOT = 0x180000  # bytes, in MicroPython's table for 4 MiB: what counts when nobody names a table
_OTADATA = (1, 0)  # type, subtype


class Slots(NamedTuple):
    """Of a table. labels; size: bytes of the smallest one, which is what counts for all."""

    labels: list[str]
    size: int


def read_table(path: Path) -> Slots:
    """Raises ValueError: no table, or one without two slots and their boot records; OSError."""
    try:
        with path.open("rb") as file:
            table, _ = PartitionTable.from_file(file)
        table.verify()
    except (InputError, UnicodeDecodeError, ValueError, IndexError, TypeError) as error:
        raise ValueError(f"{path} is no partition table: {error}") from error
    return slots_of([(row.name, row.type, row.subtype, row.size) for row in table])


def slots_of(rows: list[tuple[str, int, int, int]]) -> Slots:
    """rows: label, type, subtype, bytes. Raises ValueError: no upgrade is possible with them."""
    found = {row[0]: row[3] for row in rows if row[1] == 0 and 0x10 <= row[2] < 0x20}
    if len(found) < 2:
        raise ValueError(
            "the partition table has no two slots for applications (ota_0, ota_1), so there is "
            "nothing to upgrade into"
        )
    if not any(row[1:3] == _OTADATA for row in rows):
        raise ValueError("the partition table has no boot records (otadata, data/ota)")
    return Slots(sorted(found), min(found.values()))


def problem(size: int, slot: int = SLOT) -> str:
    """size: of the image, inflated, bytes. Why it does not fit; "" = it does."""
    if size <= slot:
        return ""
    return f"{size:,} bytes do not fit into a slot of {slot:,}: {size - slot:,} too many"
