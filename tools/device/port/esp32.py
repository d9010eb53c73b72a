"""
The module `esp32` of the simulated device: Partition and NVS, with the numbers of MicroPython's
own errors.

On MicroPython the classes are bound, at import, to the chip of OTA_SIM_FLASH (and OTA_SIM_IDF,
OTA_SIM_FAULT): when its `.rtc` file does not say what runs, that import is the power-on and runs
the boot loader. On CPython nothing is bound; a subclass with a `chip` of its own is another
device. Source: MicroPython ports/esp32/esp32_partition.c, esp32_nvs.c; ESP-IDF esp_ota_ops.c,
partition_target.c, esp_flash_api.c.
"""

import os
import sys

try:
    from . import nvs, otadata
    from .flash import Flash, read_rtc, write_rtc
except ImportError:  # MicroPython: this folder is on the path
    import nvs
    import otadata
    from flash import Flash, read_rtc, write_rtc

try:
    from micropython import const
except ImportError:  # CPython

    def const(value):
        return value


_SECTOR = const(4096)
_ENOENT = const(2)
_EINVAL = const(22)
_INVALID_ARG = const(258)
_INVALID_SIZE = const(260)
_NOT_FOUND = const(261)
_NVS_NOT_INITIALIZED = const(4353)
_VALIDATE_FAILED = const(5379)


class Chip:
    """A started device. flash: Flash; running: label of the slot that boots, None without one."""

    def __init__(self, flash, running):
        self.flash = flash
        self.running = None
        self._storage = None
        for row in flash.table:
            if row[0] == running and row[1] == 0:
                self.running = row

    def storage(self):
        """The NVS partition, mounted once a start. Raises OSError(-4353): none in the table."""
        if self._storage is None:
            row = self.flash.find(1, 2, "nvs")
            if row is None:
                raise OSError(-_NVS_NOT_INITIALIZED)
            self._storage = nvs.Storage(self.flash, row)
        return self._storage

    def guard(self, address, size):
        """A write to the running slot stops the chip (esp_partition_is_flash_region_writable)."""
        begin, end = self.running[3], self.running[3] + self.running[4]
        if address < end and begin < address + size:
            self.flash.abort()


class Partition:
    """A row of the partition table. Raises OSError(2) when there is none of that label or role."""

    chip = None
    BOOT = 0
    RUNNING = 1
    TYPE_APP = 0
    TYPE_DATA = 1

    def __init__(self, id, block_size=4096):
        flash = self.chip.flash
        if isinstance(id, tuple):
            row = id  # ours: a row of the table
        elif isinstance(id, str):
            row = flash.find(0, 0xFF, id) or flash.find(1, 0xFF, id)
        elif id == self.BOOT:
            row = otadata.boot_row(flash)
        elif id == self.RUNNING:
            row = self.chip.running
        else:
            raise ValueError
        if row is None:
            raise OSError(_ENOENT)
        self._row = row
        self._block = block_size

    @classmethod
    def find(cls, type=0, subtype=0xFF, label=None, block_size=4096):
        """Those of that type, in the order of the table. 0xFF: any (a subtype needs its type)."""
        if type == 0xFF and subtype != 0xFF:
            return []
        return [
            cls(row, block_size)
            for row in cls.chip.flash.table
            if type in (0xFF, row[1]) and subtype in (0xFF, row[2]) and label in (None, row[0])
        ]

    @classmethod
    def mark_app_valid_cancel_rollback(cls):
        """Raises OSError: -261 no otadata, 1 no active entry, -24577 flash."""
        otadata.mark_valid(cls.chip.flash)

    def info(self):
        """(type, subtype, address, size, label, encrypted)"""
        label, kind, subtype, offset, size = self._row
        return kind, subtype, offset, size, label, False

    def get_next_update(self):
        """The slot after this one, else the first. Raises OSError(2) without any."""
        rows = [row for row in self.chip.flash.table if row[1] == 0 and row[2] & 0xF0 == 0x10]
        rows.sort(key=lambda row: row[2])
        if not rows:
            raise OSError(_ENOENT)
        at = rows.index(self._row) + 1 if self._row in rows else 0
        return type(self)(rows[at % len(rows)])

    def set_boot(self):
        """Raises OSError: -5379 no bootable image, -258 no slot, -261 no otadata, -24577 flash."""
        _, kind, subtype, offset, size = self._row
        flash = self.chip.flash
        if not _appimage().verify(flash, offset, size):
            raise OSError(-_VALIDATE_FAILED)
        if kind != 0:
            raise OSError(-_INVALID_ARG)
        if subtype != 0:
            otadata.select(flash, subtype)
            return
        row = flash.find(1, 0)  # back to factory: otadata goes blank
        if row is None:
            raise OSError(-_NOT_FOUND)
        for address in range(row[3], row[3] + row[4], _SECTOR):
            flash.erase(address)

    def readblocks(self, block, buf, offset=0):
        """Raises OSError: -258 begins past the end, -260 reaches past it."""
        address = self._address(block * self._block + offset, len(buf))
        self.chip.flash.readinto(address, buf)

    def writeblocks(self, block, buf, offset=None):
        """
        Without an offset, erases first. The running slot: nothing is written, the chip restarts.

        Raises OSError: -258 and -260 past the end or odd lengths, -24577 flash.
        """
        at = block * self._block
        if offset is not None:
            at += offset
        elif self._block >= _SECTOR:
            self._erase(at, len(buf))
        else:
            self._erase_around(at, len(buf))
        self._write(at, buf)

    def ioctl(self, op, arg):
        """op 4: number of blocks; 5: size of one; 6: erase block `arg`; 1, 2, 3: 0; else None."""
        if op in (1, 2, 3):
            return 0
        if op == 4:
            return self._row[4] // self._block
        if op == 5:
            return self._block
        if op == 6:
            if self._block != _SECTOR:
                return -_EINVAL
            self._erase(arg * _SECTOR, _SECTOR)
            return 0
        return None

    def _address(self, at, size):
        # Bounds as esp_partition_read and _write have them; offsets are 32 bits there.
        at &= 0xFFFFFFFF
        if at > self._row[4]:
            raise OSError(-_INVALID_ARG)
        if size > self._row[4] - at:
            raise OSError(-_INVALID_SIZE)
        return self._row[3] + at

    def _write(self, at, buf):
        address = self._address(at, len(buf))
        self.chip.guard(address, len(buf))
        self.chip.flash.program(address, buf)

    def _erase(self, at, size):
        address = self._address(at, size)
        if size % _SECTOR:
            raise OSError(-_INVALID_SIZE)
        if at % _SECTOR:
            raise OSError(-_INVALID_ARG)
        self.chip.guard(address, size)
        for sector in range(address, address + size, _SECTOR):
            self.chip.flash.erase(sector)

    def _erase_around(self, at, size):
        # Blocks smaller than a sector: what lies around them is read before, and written back.
        end = at + size
        for sector in range(at // _SECTOR * _SECTOR, end, _SECTOR):
            cache = bytearray(_SECTOR)
            self.chip.flash.readinto(self._address(sector, _SECTOR), cache)
            self._erase(sector, _SECTOR)
            if sector < at:
                self._write(sector, memoryview(cache)[: at - sector])
            if end < sector + _SECTOR:
                self._write(end, memoryview(cache)[end - sector :])


class NVS(nvs.Namespace):
    """A namespace of the chip's NVS partition. Methods and errors: nvs.Namespace."""

    chip = None

    def __init__(self, namespace):
        super().__init__(self.chip.storage(), namespace)


def _appimage():
    # Imported where it is needed: most of a device's life it is not, and heap is scarce.
    try:
        from . import appimage
    except ImportError:
        import appimage
    return appimage


def _power_on():
    path = os.getenv("OTA_SIM_FLASH")
    flash = Flash(path, os.getenv("OTA_SIM_IDF") or "5.5", faults=os.getenv("OTA_SIM_FAULT"))
    rtc = read_rtc(path)
    if not rtc.get("running"):
        import bootloader

        rtc["running"] = bootloader.boot(flash)
        if rtc["running"] is None:
            raise SystemExit("no bootable image in %s" % path)
        write_rtc(path, rtc)
    return Chip(flash, rtc["running"])


if sys.implementation.name == "micropython" and os.getenv("OTA_SIM_FLASH"):
    Partition.chip = NVS.chip = _power_on()
