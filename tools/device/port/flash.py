"""
The flash chip: one file, NOR rules, counters, and a table of faults. Knows nothing of ESP-IDF but
the partition table.

Runs on CPython (replay, supervisor, tests: `tools.device.port.flash`) and on MicroPython (the
device: `import flash`). Modules of this folder that need each other say `from . import` and, where
there is no package, `import`.

One operation = one erase of a 4 KiB sector, or one program inside one 256-byte page. Erased is
0xFF, programming only clears bits; asking a 0 bit to become 1 is silently ignored, as on the chip,
but counted (bytes) as a violation.

Faults, in OTA_SIM_FAULT or by `Flash.fault()`: "K:KIND" or "K:KIND:NUMBER", several separated by
commas. K counts the operations that this flash file was ever asked for, from 0 (so a fault fires
once, whichever process gets there):
  before    power cut before it    torn:N    cut, only its first N bytes are done
  after     power cut after it     random:S  cut, a random subset of its due bits is done, seed S
  skip      nothing is done, success is reported
  error:E   nothing is done, OSError(-E); E is 24577 when left out
At a cut CPython raises PowerCut; on the device the process dies at once. Beside the flash file lie
`.rtc` (what survives a reset, but not a power cut) and `.counters`.
"""

import hashlib
import json
import os
import struct
import sys

try:
    from micropython import const
except ImportError:  # CPython

    def const(value):
        return value


SIZE = 4 * 1024 * 1024

_SECTOR = const(4096)
_PAGE = const(256)
_TABLE = const(0x8000)  # CONFIG_PARTITION_TABLE_OFFSET
_ROWS = const(95)  # ESP_PARTITION_TABLE_MAX_ENTRIES
_INVALID_ARG = const(258)
_OP_FAIL = const(24577)  # ESP_ERR_FLASH_OP_FAIL

_DEVICE = sys.implementation.name == "micropython"
# Kinds of fault: does it need a number? See above.
_FAULTS = {
    "before": False,
    "after": False,
    "torn": True,
    "random": True,
    "error": False,
    "skip": False,
}
COUNTERS = ("operations", "erases", "violations", "aborts")


class PowerCut(Exception):
    """The power went away (CPython only: a device process dies instead)."""


class Abort(Exception):
    """A write to the running slot: the chip restarts (CPython only: a device process dies)."""


def read_rtc(path):
    """What the RTC memory beside flash file `path` holds: dict, empty after a power cut."""
    try:
        with open(path + ".rtc") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def write_rtc(path, content):
    """Keep dict `content` over a reset; None: forget everything, as without power."""
    if content is None:
        try:
            os.remove(path + ".rtc")
        except OSError:
            pass
        return
    with open(path + ".rtc", "w") as file:
        json.dump(content, file)


def read_counters(path):
    """Counters of flash file `path` as dict of COUNTERS; all 0 before the first operation."""
    try:
        with open(path + ".counters", "rb") as file:
            counts = file.read(16)
    except OSError:
        counts = b""
    return dict(zip(COUNTERS, struct.unpack("<4I", (counts + bytes(16))[:16])))


def die():
    """End a device process at once, with no clean-up, as a reset does. Never returns."""
    os.system("kill -9 $PPID")


class Flash:
    """
    path: str, the flash file (must exist), or None: a chip in memory, all erased, of `size` bytes.
    generation: "5.5" or "6.1", the ESP-IDF whose rules the models follow.
    faults: str or None, as in the module's docstring.
    Raises OSError without a file, ValueError for another generation and malformed faults.
    """

    def __init__(self, path=None, generation="5.5", size=SIZE, faults=None):
        if generation not in ("5.5", "6.1"):
            raise ValueError("generation is 5.5 or 6.1, not %s" % generation)
        self.path = path
        self.generation = generation
        self._counts = bytearray(16)
        self._side = None
        if path is None:
            import io

            self._file = io.BytesIO(b"\xff" * size)
            self.size = size
        else:
            self._file = _open(path)
            self.size = self._file.seek(0, 2)
            self._side = _open(path + ".counters")
            self._side.readinto(self._counts)
        counts = struct.unpack("<4I", self._counts)
        self.operations, self.erases, self.violations, self.aborts = counts
        self._old = bytearray(_PAGE)
        self._rows = None
        self._faults = {}
        for text in faults.split(",") if faults else ():
            part = text.split(":")
            if not 2 <= len(part) <= 3:
                raise ValueError("fault is K:KIND[:NUMBER], not %s" % text)
            self._arm(int(part[0]), part[1], int(part[2]) if part[2:] else None)

    def close(self):
        self._file.close()
        if self._side:
            self._side.close()

    # Faults

    def fault(self, k, kind, number=None):
        """
        Arm a fault at the k-th operation from here, 0 = the next. See the module's docstring.
        """
        self._arm(self.operations + k, kind, number)

    def disarm(self):
        """Forget every fault that has not fired."""
        self._faults.clear()

    def _arm(self, at, kind, number):
        if kind not in _FAULTS or (_FAULTS[kind] and number is None):
            raise ValueError("no fault %s:%s" % (kind, number))
        self._faults[at] = kind, number

    # Operations

    def readinto(self, address, buf):
        """Fill writable `buf` from `address`. Raises OSError(-258) past the end of the chip."""
        if address + len(buf) > self.size:
            raise OSError(-_INVALID_ARG)
        self._file.seek(address)
        self._file.readinto(buf)

    def read(self, address, length):
        """bytearray of `length` bytes from `address`; for short pieces. Raises OSError(-258)."""
        buf = bytearray(length)
        self.readinto(address, buf)
        return buf

    def erase(self, address):
        """Erase the sector at `address`. Raises OSError(-258), a fault's, PowerCut."""
        if address % _SECTOR or address + _SECTOR > self.size:
            raise OSError(-_INVALID_ARG)
        self._operate(address, b"\xff" * _PAGE, _SECTOR // _PAGE)

    def program(self, address, data):
        """
        Clear the bits that are 0 in buffer `data`. Raises OSError(-258), a fault's, PowerCut.
        """
        length = len(data)
        if address + length > self.size:
            raise OSError(-_INVALID_ARG)
        data = memoryview(data)
        at = 0
        while at < length:
            size = min(_PAGE - address % _PAGE, length - at)
            self._operate(address, data[at : at + size], 0)
            address += size
            at += size

    def poke(self, address, data):
        """
        Put `data` at `address` from outside, by no rule and uncounted (a programmer, a test).
        """
        self._file.seek(address)
        self._file.write(data)

    def _operate(self, address, data, pages):
        # One operation: `data` programmed (pages 0), or `pages` pages of `data` erased.
        fault = self._faults.pop(self.operations, None) if self._faults else None
        self.operations += 1
        if pages:
            self.erases += 1
        kind, number = fault or (None, None)
        if kind in ("before", "error", "skip"):
            self._save()
            if kind == "before":
                self._cut()
            if kind == "error":
                raise OSError(-(_OP_FAIL if number is None else number))
            return
        size = len(data)
        for page in range(pages or 1):
            done = min(max(number - page * size, 0), size) if kind == "torn" else size
            old = memoryview(self._old)[:size]
            mask = _mask(number, page, size) if kind == "random" else None
            self._change(address + page * size, old, data[:done], not pages, mask)
        self._save()
        if kind:
            self._cut()

    def _change(self, address, old, data, program, mask):
        file = self._file
        file.seek(address)
        size = len(data)
        if program or mask:
            old = old[:size]
            file.readinto(old)
            file.seek(address)
            was = int.from_bytes(old, "little")
            wish = int.from_bytes(data, "little")
            new = was & wish if program else wish
            if new != wish:
                self.violations += sum(1 for i in range(size) if data[i] & ~old[i])
            if mask:
                new = (was & mask) | (new & ~mask)
            if new != wish or mask:
                data = new.to_bytes(size, "little")
        file.write(data)

    def _save(self):
        if self._side:
            counts = self._counts
            struct.pack_into(
                "<4I", counts, 0, self.operations, self.erases, self.violations, self.aborts
            )
            self._side.seek(0)
            self._side.write(counts)

    def _cut(self):
        if _DEVICE and self.path:
            write_rtc(self.path, None)
            die()
        raise PowerCut

    def abort(self):
        """The answer to a write to the running slot: a restart. Counted. Never returns."""
        self.disarm()
        self.aborts += 1
        self._save()
        if _DEVICE and self.path:
            write_rtc(self.path, {"cause": 2})  # machine.HARD_RESET, as after a panic
            die()
        raise Abort

    # Partition table

    @property
    def table(self):
        """
        Rows (label, type, subtype, offset, size) in the order of the table in flash; read once.

        Source: ESP-IDF esp_flash_partitions.h, esp_partition_info_t.
        """
        if self._rows is None:
            rows = []
            row = bytearray(32)
            for i in range(_ROWS):
                self.readinto(_TABLE + i * 32, row)
                magic, kind, subtype, offset, size, label = struct.unpack_from("<HBBII16s", row)
                if magic != 0x50AA:
                    break
                rows.append((label.split(b"\0")[0].decode(), kind, subtype, offset, size))
            self._rows = rows
        return self._rows

    def find(self, kind, subtype=0xFF, label=None):
        """First row of that type (and subtype, and label), or None (esp_partition_find_first)."""
        for row in self.table:
            if row[1] == kind and subtype in (0xFF, row[2]) and label in (None, row[0]):
                return row
        return None


def _open(path):
    # Unbuffered: other processes look at it, and this one dies hard.
    try:
        return open(path, "r+b") if _DEVICE else open(path, "r+b", buffering=0)
    except OSError:
        if not path.endswith(".counters"):
            raise
    open(path, "wb").close()
    return _open(path)


def _mask(seed, page, size):
    # Bits that stay as they were. SHA-256 and not `random`: the same bits on both interpreters.
    bits = b""
    while len(bits) < size:
        bits += hashlib.sha256(b"%d %d %d" % (seed, page, len(bits))).digest()
    return int.from_bytes(bits[:size], "little")
