"""
The module `esp32` of the benchmarks: two slots and boot records in one plain file, NVS in memory.

Asks nothing of the flash and models nothing, so that what is measured is the code above it:
erasing is only counted. A call allocates nothing. The host is the boot loader: it says in `run`
which slot runs. Source: MicroPython ports/esp32/esp32_partition.c, esp32_nvs.c.
"""

from binascii import crc32
from struct import pack, pack_into, unpack_from

_SECTOR = const(4096)
_ENOENT = const(-4354)
_BLOB = const(1000)  # bytes of NVS for one blob

_flash = open("flash.bin", "r+b")  # noqa: SIM115 (as long as the device runs)
with open("run") as _file:
    _run = int(_file.read())

# kind, subtype, address, size, label, encrypted
_SLOTS = (
    (0, 16, 0x10000, 0x500000, "ota_0", False),
    (0, 17, 0x510000, 0x500000, "ota_1", False),
)
_OTADATA = (1, 0, 0xD000, 0x2000, "otadata", False)


class Partition:
    BOOT = 0
    RUNNING = 1
    TYPE_APP = 0
    TYPE_DATA = 1
    #: operations of the slots
    erases = writes = reads = 0

    def __init__(self, id):
        self._row = id if isinstance(id, tuple) else _SLOTS[_run if id else _active()]

    @classmethod
    def find(cls, type=0, subtype=255):
        return [cls(row) for row in _SLOTS] if type == 0 else [cls(_OTADATA)]

    def info(self):
        return self._row

    def get_next_update(self):
        return Partition(_SLOTS[1 - _run])

    def readblocks(self, block, buf, offset=0):
        Partition.reads += 1
        _flash.seek(self._row[2] + block * _SECTOR + offset)
        _flash.readinto(buf)

    def writeblocks(self, block, buf, offset=None):
        Partition.writes += 1
        if offset is None:  # as on a board: it erases first
            Partition.erases += 1
            offset = 0
        _flash.seek(self._row[2] + block * _SECTOR + offset)
        _flash.write(buf)

    def ioctl(self, op, block):
        Partition.erases += 1
        if self._row is _OTADATA:
            _entry(block, b"\xff" * 32)
        return 0

    def set_boot(self):
        wanted = self._row[1] & 1
        seqs = [_seq(0), _seq(1)]
        seq = max(seqs) + 1
        while (seq - 1) % 2 != wanted:
            seq += 1
        number = pack("<I", seq)
        text = number + b"\xff" * 20 + pack("<II", 0, crc32(number, 0xFFFFFFFF))
        _entry(seqs.index(min(seqs)), text)

    @staticmethod
    def mark_app_valid_cancel_rollback():
        at = 0 if _seq(0) >= _seq(1) else 1
        _flash.seek(_OTADATA[2] + at * _SECTOR + 24)
        _flash.write(pack("<I", 2))


def _entry(sector, text):
    _flash.seek(_OTADATA[2] + sector * _SECTOR)
    _flash.write(text)


def _seq(sector):
    entry = bytearray(32)
    _flash.seek(_OTADATA[2] + sector * _SECTOR)
    _flash.readinto(entry)
    seq, _, state, crc = unpack_from("<I20sII", entry)
    return seq if crc32(entry[:4], 0xFFFFFFFF) == crc and state not in (3, 4) else 0


def _active():
    return (max(_seq(0), _seq(1), 1) - 1) % 2


# NVS: length and bytes of two blobs, then a number.
_nvs = bytearray(2 * _BLOB + 12)
with open("nvs", "rb") as _file:
    _file.readinto(_nvs)


class NVS:
    def __init__(self, namespace):
        pass

    def get_blob(self, key, buf):
        at = _at(key)
        n = _nvs[at] | _nvs[at + 1] << 8
        if not n:
            raise OSError(_ENOENT)
        for i in range(n):
            buf[i] = _nvs[at + 2 + i]
        return n

    def set_blob(self, key, value):
        at = _at(key)
        n = len(value)
        _nvs[at] = n & 255
        _nvs[at + 1] = n >> 8
        at += 2
        memoryview(_nvs)[at : at + n] = value.encode()

    def get_i32(self, key):
        number = unpack_from("<i", _nvs, 2 * _BLOB + 8)[0]
        if not number:
            raise OSError(_ENOENT)
        return number

    def set_i32(self, key, value):
        pack_into("<i", _nvs, 2 * _BLOB + 8, value)

    def commit(self):
        pass


def _at(key):
    return 0 if key == "a" else _BLOB + 2


def keep():
    """Before a restart: what is in NVS."""
    with open("nvs", "wb") as file:
        file.write(_nvs)
