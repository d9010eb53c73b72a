"""
otadata: which slot boots next, and on what terms. Both generations; the boot loader and the
running application.

Functions over a Flash; an entry is a bytearray of 32 (seq u32, label[20], state u32, crc u32).
Writes are an erase and one program, in place. Source: ESP-IDF bootloader_common_loader.c,
esp_ota_ops.c (5.5; 6.0 and later).
"""

import struct
from binascii import crc32

try:
    from micropython import const
except ImportError:  # CPython

    def const(value):
        return value


NEW = 0
PENDING_VERIFY = 1
VALID = 2
_INVALID = const(3)
_ABORTED = const(4)
ABORTED = 4

_SECTOR = const(4096)
_NONE = const(0xFFFFFFFF)
_OTA_0 = const(0x10)
_FAIL = const(-1)
_INVALID_ARG = const(258)
_NOT_FOUND = const(261)


def seq(entry):
    return struct.unpack_from("<I", entry, 0)[0]


def state(entry):
    return struct.unpack_from("<I", entry, 24)[0]


def set_state(entry, value):
    struct.pack_into("<I", entry, 24, value)


def set_seq(entry, value):
    """Give `entry` that number, and its checksum: over seq alone, so a torn state still counts."""
    struct.pack_into("<I", entry, 0, value)
    struct.pack_into("<I", entry, 28, _crc(entry))


def _crc(entry):
    return crc32(memoryview(entry)[:4], _NONE)


def blank(entry):
    """True for an erased or garbled entry, whatever its state (bootloader_utility.c)."""
    return seq(entry) == _NONE or struct.unpack_from("<I", entry, 28)[0] != _crc(entry)


def unusable(entry):
    """True when it names no slot, checksum aside (bootloader_common_ota_select_invalid)."""
    return seq(entry) == _NONE or state(entry) in (_INVALID, _ABORTED)


def active(entries):
    """Index of the entry that counts, or -1: highest seq wins, a tie goes to the first."""
    good = [not unusable(entry) and not blank(entry) for entry in entries]
    if good[0] and good[1]:
        return 0 if seq(entries[0]) >= seq(entries[1]) else 1
    return 0 if good[0] else 1 if good[1] else -1


def read(flash):
    """Both entries; None when the table has no otadata partition."""
    row = flash.find(1, 0)
    if row is None:
        return None
    return [flash.read(row[3], 32), flash.read(row[3] + _SECTOR, 32)]


def write(flash, index, entry):
    """Replace entry `index` in place. A cut leaves it blank, or torn. Raises what Flash raises."""
    address = flash.find(1, 0)[3] + index * _SECTOR
    flash.erase(address)
    flash.program(address, entry)


def slots(flash):
    """Number of slots ota_0, ota_1, ... without a gap (esp_ota_get_app_partition_count)."""
    count = 0
    while flash.find(0, _OTA_0 + count):
        count += 1
    return count


def boot_row(flash):
    """Row of the table that boots next by otadata alone, or None (esp_ota_get_boot_partition)."""
    entries = read(flash)
    if entries is None:
        return None
    count = slots(flash)
    index = active(entries)
    if count and index >= 0:
        return flash.find(0, _OTA_0 + ((seq(entries[index]) - 1) & _NONE) % count)
    row = flash.find(0, 0)  # factory
    for subtype in range(_OTA_0, _OTA_0 + 17):  # the slots, then the test application (0x20)
        row = row or flash.find(0, subtype)
    return row


def select(flash, subtype):
    """
    Make the slot of that subtype boot next, as NEW (esp_rewrite_ota_data).

    5.5 always writes the entry that is not active; from 6.0 on the active one is rewritten when it
    names the slot already. Raises OSError: -261 no otadata, -258 no such slot; what Flash raises.
    """
    entries = read(flash)
    if entries is None:
        raise OSError(-_NOT_FOUND)
    count = slots(flash)
    slot = subtype & 15
    if slot >= count:
        raise OSError(-_INVALID_ARG)
    index = active(entries)
    if index < 0:
        index, number = 0, slot + 1
    else:
        number = seq(entries[index])
        if flash.generation == "5.5" or ((number - 1) & _NONE) % count != slot:
            index = 1 - index
            number = _next_seq(number, slot, count)
    entry = entries[index]
    set_state(entry, NEW)
    set_seq(entry, number)
    write(flash, index, entry)


def _next_seq(number, slot, count):
    # Smallest number from `number` on that names the slot. Past 32 bits ESP-IDF's loop goes on at
    # the low end.
    at = (slot + 1) % count
    for _ in range(count):
        if at < number:
            at = (at + (number - at + count - 1) // count * count) & _NONE
    return at


def mark_valid(flash):
    """
    Mark the active ENTRY valid, whatever slot runs; VALID already: writes nothing.

    Raises OSError: -261 no otadata, 1 no active entry; what Flash raises.
    Source: esp_ota_mark_app_valid_cancel_rollback.
    """
    entries = read(flash)
    if entries is None:
        raise OSError(-_NOT_FOUND)
    index = active(entries)
    if index < 0 or not slots(flash):
        raise OSError(-_FAIL)
    entry = entries[index]
    if state(entry) != VALID:
        set_state(entry, VALID)
        write(flash, index, entry)
