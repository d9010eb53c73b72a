"""
A firmware that comes as .gz, inflated on its way into the slot; loaded when one comes.

The window is what it costs: `python -m tools image pack` writes it into the header, else it is
32 KiB. DeflateIO reads its source byte by byte, so a ring of MicroPython's own stands before it,
which is why this needs MicroPython 1.24. Source: RFC 1951, 1952.
"""

from . import OTAError, drop
from .stream import left

_TOO_LARGE = const(420)
_NO_APPLICATION = const(421)
_DAMAGED = const(425)

_BLOCK = const(4096)
_PART = const(512)
# What 512 bytes of an image may need: 15 bits each, and the tables of a block.
_NEED = const(1280)
_RING = const(1792)
_TABLES = const(1344)  # of DeflateIO, besides its window


class Inflate:
    """
    Between a Download and a Slot. Raises OTAError 420, 421 (no gzip, or this MicroPython
    is older than 1.24), 425; MemoryError: no such window.
    """

    def __init__(self, download, slot, n):
        try:
            from deflate import GZIP, DeflateIO
            from micropython import RingIO

            if slot.view[:3] != b"\x1f\x8b\x08":
                raise ImportError
        except ImportError:
            raise OTAError(_NO_APPLICATION)
        head = slot.view[:n]
        window = 15
        if head[3] == 4 and head[10:16] == b"\x09\0MP\x05\0":
            window, size = head[16], int.from_bytes(head[17:21], "little")
            if not 8 < window < 16:
                raise OTAError(_DAMAGED)
            if size > slot.size:
                raise OTAError(_TOO_LARGE)
        drop()
        hold = bytearray((1 << window) + _TABLES)
        self._in = ring = RingIO(_RING)
        del hold  # its place is for the window, which DeflateIO makes when it first reads
        ring.write(head)
        download.digest.update(head)
        slot.exact = slot.exact or 1  # the digest is that of the file, not of what is in flash
        self._out = DeflateIO(ring, GZIP, window)

    def step(self, download, slot, end):
        ring = self._in
        back = slot.copy
        while left(end):
            if download.done == download.size and not self._out:
                download.readinto(back, 0, 0)
                return download.over()
            if download.done != download.size and ring.any() < _NEED:
                n = download.readinto(back, _PART, 100)
                if not n:
                    break
                download.digest.update(back if n == _PART else back[:n])
                if self._out:
                    ring.write(back, n)
            else:
                try:
                    n = self._out.readinto(slot.cut[slot.count // _PART])
                except MemoryError:
                    raise
                except Exception:
                    return download.over(_DAMAGED)
                slot.count += n
                if n < _PART:
                    self._out = None
                if slot.done + slot.count > slot.size:
                    raise OTAError(_TOO_LARGE)
                if slot.count == _BLOCK or n < _PART and slot.count:
                    slot.write(slot.count)
                    slot.count = 0
        download.progress = download.done * 95 // download.size
        return download.progress
