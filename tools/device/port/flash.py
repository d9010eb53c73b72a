"""
The flash chip: one file, NOR rules, counters. Knows nothing of ESP-IDF but the partition table.

Runs on CPython (replay, supervisor, tests: `tools.device.port.flash`) and on MicroPython (the
device: `import flash`). Modules of this folder that need each other say `from . import` and, where
there is no package, `import`.

One operation = one erase of a 4 KiB sector, or one program inside one 256-byte page. Erased is
0xFF, programming only clears bits; asking a 0 bit to become 1 is silently ignored, as on the chip,
but counted (bytes) as a violation.

Faults, in OTA_SIM_FAULT or by `Flash.fault()`, are those of flashfault.py, which is loaded when
there are some. At a power cut CPython raises PowerCut; on the device the process dies at once.
Beside the flash file lie `.rtc` (what survives a reset, but not a power cut) and `.counters`.
"""

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
_NEVER = const(0x3FFFFFFF)

_DEVICE = sys.implementation.name == "micropython"
_ERASED = b"\xff" * _PAGE
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
    # When it died before its shell began, the shell's parent is not it any more.
    os.system("[ $PPID = 1 ] || kill -9 $PPID")


class Flash:
    """
    path: str, the flash file (must exist), or None: a chip in memory, all erased, of `size` bytes.
    generation: "5.5" or "6.1", the ESP-IDF whose rules the models follow.
    faults: str or None, as in flashfault.py.
    Raises OSError without a file, ValueError for another generation and malformed faults.

    For flashfault.py: `due`, the operation from which on it is asked; `marks`, of bytes that do
    not read as they are; save(), cut() and `file`.
    """

    def __init__(self, path=None, generation="5.5", size=SIZE, faults=None):
        if generation not in ("5.5", "6.1"):
            raise ValueError("generation is 5.5 or 6.1, not %s" % generation)
        self.path = path
        self.generation = generation
        self._counts = bytearray(16)
        self._side = None
        self._faults = None
        self.due = _NEVER
        self.marks = None
        if path is None:
            import io

            self.file = io.BytesIO(b"\xff" * size)
            self.size = size
        else:
            self.file = _open(path)
            self.size = self.file.seek(0, 2)
            self._side = _open(path + ".counters")
            self._side.readinto(self._counts)
        counts = struct.unpack("<4I", self._counts)
        self.operations, self.erases, self.violations, self.aborts = counts
        self._old = memoryview(bytearray(_PAGE))
        self._rows = None
        if faults or (path and _exists(path + ".stuck")):
            self._load().arm_all(faults)
            if self._faults.over():  # as after a cut: a device gets the heap back
                self._faults = self.marks = None
                sys.modules.pop("flashfault", None)

    def close(self):
        self.file.close()
        if self._side:
            self._side.close()
        if self._faults:
            self._faults.close()

    # Faults

    def fault(self, k, kind, number=None):
        """
        Arm a fault at the k-th operation from here, 0 = the next. See flashfault.py; ValueError.
        """
        self._load().arm(self.operations + k, kind, number)

    def disarm(self):
        """Forget every fault that has not shown. What is stuck stays."""
        if self._faults:
            self._faults.disarm()

    def _load(self):
        if not self._faults:
            try:
                from . import flashfault
            except ImportError:  # MicroPython
                import flashfault
            self._faults = flashfault.Faults(self)
        return self._faults

    # Operations

    def readinto(self, address, buf):
        """Fill writable `buf` from `address`. Raises OSError(-258) past the end, a fault's."""
        if address + len(buf) > self.size:
            raise OSError(-_INVALID_ARG)
        self.file.seek(address)
        self.file.readinto(buf)
        if self.marks:
            self._faults.reading(address, buf)

    def read(self, address, length):
        """bytearray of `length` bytes from `address`; for short pieces. Raises OSError(-258)."""
        buf = bytearray(length)
        self.readinto(address, buf)
        return buf

    def erase(self, address):
        """Erase the sector at `address`. Raises OSError(-258), a fault's, PowerCut."""
        if address % _SECTOR or address + _SECTOR > self.size:
            raise OSError(-_INVALID_ARG)
        self.erases += 1
        self._operate(address, _ERASED, _SECTOR // _PAGE)

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
        self.file.seek(address)
        self.file.write(data)
        if self._faults:
            self._faults.settle()

    def _operate(self, address, data, pages):
        # One operation: `data` programmed (pages 0), or `pages` pages of `data` erased.
        self.operations += 1
        if self.operations > self.due and self._faults.operate(address, data, pages):
            return
        file = self.file
        file.seek(address)
        if not pages:
            size = len(data)
            old = self._old[:size]
            file.readinto(old)
            file.seek(address)
            if old != memoryview(_ERASED)[:size]:
                was = int.from_bytes(old, "little")
                wish = int.from_bytes(data, "little")
                if was & wish != wish:
                    self.violated(address, sum(1 for i in range(size) if data[i] & ~old[i]))
                    data = (was & wish).to_bytes(size, "little")
            pages = 1
        for _ in range(pages):
            file.write(data)
        self.save()

    def violated(self, address, count):
        """Counts bytes that a program could not make what it wanted, and notes where."""
        self.violations += count
        if self.path:
            with open(self.path + ".violations", "a") as file:
                file.write("%d %d\n" % (address, count))

    def save(self):
        """Keep the counters, whatever happens to this process."""
        if self._side:
            counts = self._counts
            struct.pack_into(
                "<4I", counts, 0, self.operations, self.erases, self.violations, self.aborts
            )
            self._side.seek(0)
            self._side.write(counts)

    def cut(self):
        """The power goes away. Never returns."""
        if _DEVICE and self.path:
            write_rtc(self.path, None)
            die()
        raise PowerCut

    def abort(self):
        """The answer to a write to the running slot: a restart. Counted. Never returns."""
        self.disarm()
        self.aborts += 1
        self.save()
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


def _exists(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False
