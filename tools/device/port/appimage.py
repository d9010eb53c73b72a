"""
Is this a bootable application image? The verdict of ESP-IDF's own code, in `set_boot()` and in the
boot loader.

Reads the slot piece by piece through one small buffer. It accepts what the chip accepts: no
segments at all, bytes after the end, two equal flips in an image without a hash. The boot loader
is stricter in one thing: it refuses a segment that it would load over itself. Source: ESP-IDF
esp_image_format.c (image_load, verify_load_addresses), bootloader_common_loader.c
(check_chip_validity); addresses: the ESP32's soc.h and bootloader.ld.
"""

import struct
from hashlib import sha256

try:
    from micropython import const
except ImportError:  # CPython

    def const(value):
        return value


_MAGIC = const(0xE9)
_ESP32 = const(0)
_REVISION = const(301)  # of the simulated chip: v3.1
_SEGMENTS = const(16)
_LENGTH = const(0x1000000)  # 16 MiB: flash address space
_DESCRIPTION = const(256)  # sizeof(esp_app_desc_t), in front of the first segment
_CHUNK = const(1024)


def verify(flash, offset, size, loading=False):
    """
    True when the partition of `size` bytes at `offset` holds an image that may boot.

    flash: Flash; its generation counts. loading: as the boot loader judges, which puts segments
    into the RAM; else as `set_boot()` does. Raises nothing, whatever lies there.
    """
    try:
        return _verify(flash, offset, size, loading)
    except OSError:  # a length that leads past the end of the chip
        return False


def _verify(flash, offset, size, loading):
    header = flash.read(offset, 24)
    magic, segments = header[0], header[1]
    chip, _, least, greatest = struct.unpack_from("<HBHH", header, 12)
    if magic != _MAGIC or chip != _ESP32 or segments > _SEGMENTS:
        return False
    if least > _REVISION or (greatest not in (0, 0xFFFF) and greatest < _REVISION):
        return False
    hash_appended = header[23]
    digest = sha256(header)
    buf = memoryview(bytearray(_CHUNK))
    sums = 0xEF
    at = offset + 24
    for i in range(segments):
        segment = flash.read(at, 8)
        digest.update(segment)
        load, length = struct.unpack("<II", segment)
        at += 8
        if length % 4 or length >= _LENGTH or (_mapped(load) and (at ^ load) & 0xFFFF):
            return False
        if i == 0 and length < _DESCRIPTION and flash.generation != "5.5":
            return False
        if loading and length and not _loadable(load, load + length):
            return False
        while length:
            piece = buf[: min(length, _CHUNK)]
            flash.readinto(at, piece)
            digest.update(piece)
            sums ^= int.from_bytes(piece, "little")
            at += len(piece)
            length -= len(piece)
    tail = flash.read(at, 16 - (at - offset) % 16)  # padding, checksum in the last byte
    digest.update(tail)
    at += len(tail)
    if tail[-1] != _fold(sums):
        return False
    if hash_appended:
        if flash.read(at, 32) != digest.digest():
            return False
        at += 32
    return at - offset <= size


def _mapped(load):
    # Read through the cache, so the 64 KiB pages must lie right. ESP32: data, instructions.
    return 0x3F400000 <= load < 0x3F800000 or 0x400D0000 <= load < 0x40400000


def _loadable(load, end):
    # May the boot loader put a segment there? Not over its stack (top: 0x3FFE3F20) and 32 KiB
    # under it, its data (0x3FFF0000 on), what lies between (as instructions it is out of their
    # range), its text (0x40078000 on). The chip counts the 32 KiB from the stack pointer, a bit
    # lower. No table: that would stay in the heap.
    return (
        load < 0x10000000  # padding: not loaded
        or _mapped(load)
        or 0x3FF80000 <= load < end <= 0x3FF82000  # RTC fast memory, as data
        or 0x3FFAE000 <= load < end <= 0x3FFDBF20  # data
        or 0x3FFF6000 <= load < end <= 0x40000000
        or 0x40080000 <= load < end <= 0x400AA000  # instructions
        or 0x400C0000 <= load < end <= 0x400C2000  # RTC fast memory, as instructions
        or 0x50000000 <= load < end <= 0x50002000  # RTC slow memory
    )


def _fold(sums):
    # Exclusive or of all bytes of a number of up to _CHUNK bytes.
    bits = _CHUNK * 4
    while bits >= 8:
        sums = (sums >> bits) ^ (sums & ((1 << bits) - 1))
        bits //= 2
    return sums
