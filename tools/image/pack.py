"""
Images as .gz, as a device takes them: inflated on the way into its slot.

A gzip header does not tell the window that inflating needs, and one that is too small fails half
way. So the window stands in the header's extra field, and the size of what is inside: the device
refuses what does not fit before it erases. Source: RFC 1952 (2.3.1.1, subfields); ota/inflate.py.
"""

import hashlib
import zlib
from pathlib import Path
from typing import NamedTuple

from .look import look

WINDOWS = {f"{1 << bits if bits < 10 else f'{1 << bits - 10}K'}": bits for bits in range(9, 16)}
WINDOW = "4K"
UNKNOWN = 15  # the window of a .gz that does not tell: the largest there is

INFLATED_MAX = 16 << 20  # bytes: more than any slot
_BESIDE = 5 << 10  # bytes of a device's heap: the inflater without its window, its ring, its code

_MAGIC = b"\x1f\x8b\x08"
_EXTRA = 4  # the flag for an extra field, and no other
_HEAD = _MAGIC + bytes((_EXTRA, 0, 0, 0, 0, 2, 255)) + b"\x09\0MP\x05\0"


class Packed(NamedTuple):
    """
    size, inflated: bytes; window: bits, told: the header tells it; md5: of the file, as the
    platform announces it.
    """

    size: int
    inflated: int
    window: int
    told: bool
    md5: str

    @property
    def heap(self) -> int:
        """What a device needs for it, besides what a plain image needs: bytes, of 64 bits."""
        return (1 << self.window) + _BESIDE


def is_packed(data: bytes) -> bool:
    """True for what begins as a .gz does."""
    return data[:3] == _MAGIC


def pack(data: bytes, window: int = WINDOWS[WINDOW]) -> bytes:
    """
    An image as .gz: the same bytes each time. window: 9 to 15, of 1 << window bytes. Raises
    ValueError: another window.
    """
    if not 9 <= window <= 15:
        raise ValueError(f"window {window}: 9 to 15 bits are possible")
    engine = zlib.compressobj(9, zlib.DEFLATED, -window, 9)
    body = engine.compress(data) + engine.flush()
    head = _HEAD + bytes((window,)) + len(data).to_bytes(4, "little")
    return head + body + zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")


def unpack(data: bytes) -> bytes:
    """What is inside. Raises ValueError: damaged, cut, or larger than 16 MiB."""
    engine = zlib.decompressobj(31)
    try:
        inside = engine.decompress(data, INFLATED_MAX)
    except zlib.error as error:
        raise ValueError(f"the .gz is damaged: {error}") from error
    if engine.unconsumed_tail:
        raise ValueError(f"the .gz holds more than {INFLATED_MAX >> 20} MiB: that is no firmware")
    if not engine.eof:
        raise ValueError("the .gz is cut: its end is missing")
    if engine.unused_data:
        raise ValueError(f"{len(engine.unused_data)} bytes after the end of the .gz")
    return inside


def told(data: bytes) -> Packed:
    """What a .gz says of itself. Raises ValueError as unpack()."""
    inside = len(unpack(data))
    tells = data[3] == _EXTRA and data[10:16] == _HEAD[10:]
    window = data[16] if tells else UNKNOWN
    if tells and not (9 <= window <= 15 and int.from_bytes(data[17:21], "little") == inside):
        raise ValueError("the .gz tells a window or a size that is not its own")
    return Packed(len(data), inside, window, tells, hashlib.md5(data).hexdigest())


def pack_file(source: Path, target: Path, window: int, force: bool = False) -> Packed:
    """
    Writes an application image as .gz. force: also over a file. Raises ValueError: source is no
    good image, or one already packed; FileExistsError; OSError.
    """
    data = source.read_bytes()
    if is_packed(data):
        raise ValueError(f"{source} is a .gz already")
    problem = look(source).problem
    if problem:
        raise ValueError(f"{source}: {problem}")
    packed = pack(data, window)
    write_new(target, packed, force)
    return told(packed)


def write_new(target: Path, data: bytes, force: bool = False) -> None:
    """
    A file that is whole, or not there. force: also over one that is there. Raises FileExistsError,
    OSError.
    """
    if target.exists() and not force:
        raise FileExistsError(f"{target} is there already: --force writes over it")
    part = target.with_name(target.name + ".part")
    part.write_bytes(data)
    part.replace(target)
