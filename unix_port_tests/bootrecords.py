"""
The boot records (OTA data) by MicroPython's own API: to set them as a case needs them, and to put
them back.

The running slot is ota_0. Source: ESP-IDF esp_flash_partitions.h (esp_ota_select_entry_t),
bootloader_common_loader.c.
"""

from binascii import crc32
from struct import pack, unpack

from esp32 import Partition

NEW = 0
PENDING_VERIFY = 1
VALID = 2
INVALID = 3
ABORTED = 4
UNDEFINED = 0xFFFFFFFF

HERE = 0x10  # subtype of ota_0
OTHER = 0x11

BLANK = b"\xff" * 32

_BLOCK = 4096


def entry(seq, state, crc=None):
    """32 bytes of a record. seq: odd = ota_0, even = ota_1; crc: by default the right one."""
    number = pack("<I", seq)
    if crc is None:
        crc = crc32(number, 0xFFFFFFFF)
    return number + b"\xff" * 20 + pack("<II", state, crc)


def read():
    """The two records: list of bytes, 32 each."""
    return [_read(sector) for sector in (0, 1)]


def write(*records):
    """Writes both: bytes of 32 or (seq, state). What stands there already is not written again."""
    for sector, record in enumerate(records):
        if isinstance(record, tuple):
            record = entry(*record)
        if _read(sector) != record:
            otadata = _otadata()
            otadata.ioctl(6, sector)
            if record != BLANK:
                otadata.writeblocks(sector, record, 0)


def states():
    """What stands there: list of (seq, state), None for a blank one."""
    found = []
    for record in read():
        seq, _, state, _ = unpack("<I20sII", record)
        found.append(None if record == BLANK else (seq, state))
    return found


def slot(subtype):
    """The Partition of that slot."""
    return Partition.find(Partition.TYPE_APP, subtype)[0]


def _otadata():
    return Partition.find(Partition.TYPE_DATA, 0)[0]


def _read(sector):
    record = bytearray(32)
    _otadata().readblocks(sector, record, 0)
    return bytes(record)
