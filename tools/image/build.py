"""
Builds application images for the ESP32 that esptool and a boot loader accept, with our modules
frozen in.

All but the frozen modules is filler: no machine code that would run on a board.
Source: ESP-IDF esp_app_format.h, esp_app_desc.h; esptool's firmware image format.
"""

import hashlib
import random
import struct
from collections.abc import Mapping
from functools import reduce
from operator import xor
from pathlib import Path
from zlib import crc32

from esptool.targets import CHIP_DEFS

from .archive import Source, pack

MAGIC = 0xE9
HEADER = struct.Struct("<BBBBI B3s H B HH 4x B")  # 24 bytes
DESCRIPTOR = struct.Struct("<II 8x 32s 32s 16s 16s 32s 32s HHB 75x")  # 256 bytes, at 32
DESCRIPTOR_MAGIC = 0xABCD5432
CHECKSUM_START = 0xEF
MAPPED_UNIT = 0x10000  # a segment mapped from flash: file offset = address modulo this

Segment = tuple[int, bytes]  # load address, data

_SEGMENT_HEAD = 8
_DIO_80M_4MB = (2, 0x2F)  # flash mode; flash size and frequency
_WP_PIN_NONE = 0xEE
_REVISION_MAX = 399  # ESP-IDF's own: every chip up to v3.99
_EFUSE_REVISION_MAX = 99  # as ESP-IDF sets it
_PAGE_BITS = MAPPED_UNIT.bit_length() - 1
_RAM = 0x200  # bytes in the DRAM and in the IRAM segment
_IRAM = 2  # which segment it is
_HASH = 32


def build(
    path: Path | str,
    modules: Mapping[str, Source],
    version: str = "",
    project: str = "",
    chip: str = "esp32",
    size: int | None = None,
    seed: int | None = None,
    idf: str = "v5.5.2",
) -> Path:
    """
    Writes an application image.

    modules: name ("main", "ota/agent") to source, see `archive.Source`; version, project: at
    most 31 bytes, for the descriptor (stock MicroPython leaves both empty); chip: esptool's
    name; size: bytes of the whole file, rounded up to 16 (default: as small as it gets); seed:
    of the filler, by default another one for every content. Raises archive.CompileError,
    ValueError when it does not fit or chip is unknown, OSError.
    """
    if chip not in CHIP_DEFS:
        raise ValueError(f"chip {chip!r}: unknown, known are {', '.join(CHIP_DEFS)}")
    archive = pack(modules)
    options = repr((version, project, chip, size, seed, idf)).encode()
    identity = hashlib.sha256(options + archive).digest()
    if seed is None:
        seed = crc32(identity)
    drom = _descriptor(version, project, idf, identity) + archive
    segments = _segments(chip, drom, size, random.Random(seed))
    content = seal(segments, chip, entry=segments[_IRAM][0])
    path = Path(path)
    path.write_bytes(content)
    return path


def seal(segments: list[Segment], chip: str, entry: int) -> bytes:
    """
    Header, segments (address, data), checksum and hash. entry: address where the code begins.
    """
    mode, size_and_speed = _DIO_80M_4MB
    image = bytearray(
        HEADER.pack(
            MAGIC,
            len(segments),
            mode,
            size_and_speed,
            entry,
            _WP_PIN_NONE,
            bytes(3),
            CHIP_DEFS[chip].IMAGE_CHIP_ID,
            0,
            0,
            _REVISION_MAX,
            1,
        )
    )
    checksum = CHECKSUM_START
    for address, data in segments:
        image += struct.pack("<II", address, len(data)) + data
        checksum = reduce(xor, data, checksum)
    image += bytes(15 - len(image) % 16)
    image.append(checksum)
    return bytes(image + hashlib.sha256(image).digest())


def _descriptor(version: str, project: str, idf: str, identity: bytes) -> bytes:
    texts = [text.encode() for text in (version, project, "00:00:00", "Jan  1 2026", idf)]
    if max(len(texts[0]), len(texts[1])) > 31:
        raise ValueError("version, project: at most 31 bytes each")
    limits = 0, _EFUSE_REVISION_MAX, _PAGE_BITS
    return DESCRIPTOR.pack(DESCRIPTOR_MAGIC, 0, *texts, identity, *limits)


def _segments(chip: str, drom: bytes, size: int | None, rng: random.Random) -> list[Segment]:
    rom = CHIP_DEFS[chip]
    ram = {name: start for start, _, name in rom.MEMORY_MAP}
    first = HEADER.size + _SEGMENT_HEAD
    rams = [(ram["DRAM"] + 0x2000, filler(_RAM, rng)), (ram["IRAM"], filler(_RAM, rng))]
    fixed = HEADER.size + 2 * (_SEGMENT_HEAD + _RAM)  # all but the mapped segments and the end
    if size is None:
        return [(rom.DROM_MAP_START + first, drom), *rams]
    room = (size + 15) // 16 * 16 - _HASH - 16 - fixed - _SEGMENT_HEAD
    if room < len(drom):
        raise ValueError(f"size {size}: too small, descriptor and modules take {len(drom)} bytes")
    # Data and code half and half, when there is enough for a unit of each.
    begin = fixed + 2 * _SEGMENT_HEAD  # of the code, were there no data
    units = (begin + max(len(drom), room // 2)) // MAPPED_UNIT + 1
    code_at = units * MAPPED_UNIT + first
    code = room + fixed + _SEGMENT_HEAD - code_at
    if code < _RAM:
        return [(rom.DROM_MAP_START + first, drom + filler(room - len(drom), rng)), *rams]
    drom += filler(code_at - begin - len(drom), rng)
    irom = (rom.IROM_MAP_START + first, filler(code, rng))
    return [(rom.DROM_MAP_START + first, drom), *rams, irom]


def filler(length: int, rng: random.Random) -> bytes:
    """
    Bytes that compress about as well as firmware does: every second piece comes again and again.
    """
    pool = [rng.randbytes(16) for _ in range(512)]
    pieces = rng.choices(pool, k=length // 32 + 1)
    return b"".join(piece + rng.randbytes(16) for piece in pieces)[:length]
