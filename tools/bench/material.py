"""
An image to measure with: machine code and constants of the pinned interpreter in an application's
header. Real code, so that it packs as code does; for another chip, so that it boots nowhere.
"""

import struct
import sysconfig
from functools import cache
from pathlib import Path

_SECTIONS = (b".text", b".rodata")
_HEADER = 288  # bytes: image header, segment header, descriptor


@cache
def code() -> bytes:
    """The sections .text and .rodata of the interpreter. Raises FileNotFoundError."""
    folder = Path(sysconfig.get_paths()["platlib"])
    files = sorted(folder.glob("micropython_run*.so"))
    if not files:
        raise FileNotFoundError(f"no micropython_run*.so in {folder}: make venv")
    data = files[0].read_bytes()
    # ELF64: where the section headers are, their size and number, which one has the names.
    table, size, number, names = struct.unpack_from("<Q10xHHH", data, 0x28)
    rows = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(number)]
    base = rows[names][4]
    found = b""
    for name, _, _, _, offset, length in rows:
        end = data.index(b"\0", base + name)
        if data[base + name : end] in _SECTIONS:
            found += data[offset : offset + length]
    return found


@cache
def image(size: int) -> bytes:
    """size: bytes."""
    made = bytearray((code() * (size // len(code()) + 1))[:size])
    made[:_HEADER] = bytes(_HEADER)
    made[:2] = b"\xe9\x02"
    made[23] = 1  # a SHA-256 is appended; nobody looks
    made[32:36] = b"\x32\x54\xcd\xab"
    return bytes(made)
