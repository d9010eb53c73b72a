"""
The partition table, on the host side: the usual rows, the binary form, a flash file made of them.

Source: MicroPython ports/esp32/partitions-4MiB-ota.csv; ESP-IDF gen_esp32part.py (rows of 32
bytes, a row with their MD5).
"""

import hashlib
import struct

TABLE = 0x8000  # where it lies in flash
SIZE = 4 * 1024 * 1024

GENERATIONS = ("5.5", "6.1")  # of the boot loader, as the model knows them

# MicroPython's OTA table for 4 MiB: label, type, subtype, offset, size
OTA_4MIB = (
    ("nvs", 1, 2, 0x9000, 0x4000),
    ("otadata", 1, 0, 0xD000, 0x2000),
    ("phy_init", 1, 1, 0xF000, 0x1000),
    ("ota_0", 0, 0x10, 0x10000, 0x180000),
    ("ota_1", 0, 0x11, 0x190000, 0x180000),
    ("vfs", 1, 0x81, 0x310000, 0xF0000),
)


def table_bytes(rows):
    """
    Binary table, 0xC00 bytes, the rest of them erased.

    rows: (label, type, subtype, offset, size) each. Raises ValueError when they are too many.
    """
    data = b""
    for label, kind, subtype, offset, size in rows:
        data += struct.pack("<HBBII16sI", 0x50AA, kind, subtype, offset, size, label.encode(), 0)
    data += b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(data).digest()
    if len(data) > 0xC00:
        raise ValueError(f"{len(rows)} rows do not fit into a partition table")
    return data + b"\xff" * (0xC00 - len(data))


def make_flash(path, images=None, rows=OTA_4MIB, size=SIZE):
    """
    Write a flash file as a programmer would leave it: erased, with the table, and images in place.

    path: where; images: dict of label to bytes; rows, size: the table and the chip, bytes. Raises
    ValueError for what does not fit.
    """
    flash = bytearray(b"\xff" * size)
    flash[TABLE : TABLE + 0xC00] = table_bytes(rows)
    places = {row[0]: row for row in rows}
    for label, image in (images or {}).items():
        if label not in places:
            raise ValueError(f"no partition {label} in the table")
        _, _, _, offset, room = places[label]
        if len(image) > room or offset + room > size:
            raise ValueError(f"{len(image)} bytes do not fit into {label} ({room} bytes)")
        flash[offset : offset + len(image)] = image
    with open(path, "wb") as file:
        file.write(flash)
