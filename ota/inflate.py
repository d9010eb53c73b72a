"""
A firmware that comes as .gz, inflated on its way into the slot; loaded when one comes.

The window is what it costs: `python -m tools image pack` writes it into the header, else it is
32 KiB. DeflateIO reads its source byte by byte, so a ring of MicroPython's own stands before it;
older firmwares (before 1.24) have none, there a slow one takes its place. Source: RFC 1951, 1952.
"""

from io import IOBase
from struct import unpack_from

from . import OTAError
from .stream import left

_TOO_LARGE = const(420)
_NO_APPLICATION = const(421)
_DAMAGED = const(425)

_BLOCK = const(4096)
_PART = const(512)
# What 512 bytes of an image may need: 15 bits each, and the tables of a block.
_NEED = const(1280)
_RING = const(1792)


class _Ring(IOBase):
    # In the place of RingIO where there is none: an object for each byte, about ten times slower.
    def __init__(self, _):
        self._data = b""

    def any(self):
        return len(self._data)

    def write(self, buf, n=None):
        self._data += buf[:n]

    def readinto(self, buf):
        n = min(len(buf), len(self._data))
        buf[:n] = self._data[:n]
        self._data = self._data[n:]
        return n


class Inflate:
    """
    Between a Download and a Slot. Raises OTAError 420, 421 (no gzip, or this MicroPython has no
    deflate), 425; MemoryError: no such window.
    """

    def __init__(self, job, slot):
        try:
            from deflate import GZIP, DeflateIO
        except ImportError:
            raise OTAError(_NO_APPLICATION)
        try:
            from micropython import RingIO
        except ImportError:
            RingIO = _Ring
        head = slot.view[: slot.fill]
        window = 15
        if head[:3] != b"\x1f\x8b\x08":
            raise OTAError(_NO_APPLICATION)
        if head[3] == 4 and head[10:16] == b"\x09\0MP\x05\0":
            window, size = unpack_from("<BI", head, 16)
            if not 8 < window < 16:
                raise OTAError(_DAMAGED)
            if size > slot.size:
                raise OTAError(_TOO_LARGE)
        self._ring = ring = RingIO(_RING)
        ring.write(head)
        job.digest.update(head)
        slot.fill = 0
        slot.exact = slot.exact or 1  # the digest is that of the file, not of what is in flash
        self._from = DeflateIO(ring, GZIP, window)

    def step(self, job, slot, end):
        ring = self._ring
        back = memoryview(slot.back)
        while left(end):
            if job.done == job.size and not self._from:
                job.readinto(back, 0, 0)
                job.over()
                break
            if job.done != job.size and ring.any() < _NEED:
                n = job.readinto(back, _PART, 100)
                if not n:
                    break
                job.digest.update(back if n == _PART else back[:n])
                if self._from:
                    ring.write(back, n)
            else:
                try:
                    n = self._from.readinto(slot.cut[slot.fill // _PART])
                except MemoryError:
                    raise
                except Exception:
                    job.over(_DAMAGED)
                    break
                slot.fill += n
                if n < _PART:
                    self._from = None
                if slot.safe + slot.fill > slot.size:
                    raise OTAError(_TOO_LARGE)
                if slot.fill == _BLOCK or n < _PART and slot.fill:
                    slot.add(slot.fill)
        if job.progress < 96:
            job.progress = job.done * 95 // job.size
        return job.progress
