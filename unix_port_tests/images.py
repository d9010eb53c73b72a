"""
Small application images that an ESP32 takes: header, one segment with the descriptor, checksum,
SHA-256.

Made in place: the heap of a device holds one or two of them. Source: ESP-IDF esp_app_format.h
(esp_image_header_t), esp_app_desc.h (esp_app_desc_t).
"""

from hashlib import sha256
from struct import pack

BUILD = bytes(range(0xA0, 0xC0))  # stands for the SHA-256 of an ELF file

_HEAD = 288  # header, head of the segment, descriptor
_MAPPED = 0x3F400020  # where the ESP32 maps what lies at 32 in a slot


def application(size=640, version=b"", build=BUILD):
    """
    An image: bytearray of `size` bytes, a multiple of 16, at least 352. version: at most 31 bytes;
    build: 32 bytes.
    """
    data = bytearray(size)
    end = size - 36  # of the segment: 4 bytes up to the checksum, the SHA-256
    data[:_HEAD] = head(end - 32, version, build)
    checksum = 0xEF
    for i in range(32, end):
        if i >= _HEAD:
            data[i] = i * 7 & 0xFF
        checksum ^= data[i]
    data[size - 33] = checksum
    view = memoryview(data)
    view[size - 32 :] = sha256(view[: size - 32]).digest()
    return data


def head(
    length=568,
    version=b"",
    build=BUILD,
    magic=0xE9,
    segments=1,
    chip=0,
    hashed=1,
    app=0xABCD5432,
):
    """
    The first 288 bytes: bytearray. length: of the segment; magic: byte 0; segments: how many;
    chip: 0 = ESP32; hashed: 1 = a SHA-256 is appended; app: magic of the descriptor.
    """
    data = bytearray(pack("<BBBBI", magic, segments, 2, 0x2F, 0x40080000))
    data += pack("<BBBBHBHHIB", 0xEE, 0, 0, 0, chip, 0, 0, 0xFFFF, 0, hashed)
    data += pack("<II", _MAPPED, length)
    data += pack("<IIII", app, 0, 0, 0)
    data += pack("<32s32s16s16s32s", version, b"", b"00:00:00", b"Jan  1 2026", b"v5.5.2")
    return data + build + bytes(80)
