"""
The two slots: boot records, images, and blocks into the slot that does not run (erase, write, read
back, switch).

A slot goes by the subtype of its partition: int, 16 = ota_0. Never writes the running slot, and
never erases its boot record by itself. Stricter with images than `set_boot`, which takes some
without segments or hash. Source: MicroPython esp32.Partition; ESP-IDF OTA data, esp_app_format.h,
esp_app_desc.h; docs/hardware.md.
"""

from binascii import crc32
from struct import unpack

from esp32 import Partition

from .protocol import OTAError

_NO_APPLICATION = const(421)
_OTHER_CHIP = const(422)
_NO_SLOT = const(423)
_COMBINED = const(424)
_ERASE = const(450)
_WRITE = const(451)
_READ_BACK = const(452)

_BLOCK = const(4096)
_PART = const(512)  # what is read back at a time
_HEAD = const(208)  # bytes of an image that we look at
_IOCTL_ERASE = const(6)
_VALID = const(2)  # state of a boot record


def running():
    """The Partition that runs."""
    return Partition(Partition.RUNNING)


def booting():
    """The slot that boots next, by the boot records: int."""
    return Partition(Partition.BOOT).info()[1]


def head(part):
    """The first 208 bytes of the image in a Partition: bytearray."""
    buf = bytearray(_HEAD)
    part.readblocks(0, buf, 0)
    return buf


def records():
    """
    Yields the boot records whose checksum fits: (state int, slot int, Partition, sector int).

    Source: ESP-IDF bootloader_common.c; the checksum is over the number alone, and that of a blank
    sector does not fit.
    """
    slots = 0
    for app in Partition.find(Partition.TYPE_APP):
        slots += app.info()[1] >> 4 == 1
    for otadata in Partition.find(Partition.TYPE_DATA, 0):
        for sector in (0, 1):
            entry = bytearray(32)
            otadata.readblocks(sector, entry, 0)
            seq, _, state, crc = unpack("<I20sII", entry)
            if crc32(entry[:4], 0xFFFFFFFF) == crc:
                yield state, 16 + (seq - 1) % slots, otadata, sector


def confirm(own):
    """
    Makes the running Partition the one that boots, and its record VALID. True when that is what
    is read back: flash may fail silently. Raises OSError of the flash.
    """
    slot = own.info()[1]
    # It marks the record that is active, so that has to be ours.
    if booting() != slot:
        own.set_boot()
    own.mark_app_valid_cancel_rollback()
    for record in records():
        if record[:2] == (_VALID, slot):
            return True


def forget(slot):
    """Erases each boot record that names a slot (int), so that it does not boot."""
    for _, named, otadata, sector in records():
        if named == slot:
            otadata.ioctl(_IOCTL_ERASE, sector)


class Slot:
    """
    Writer of the slot that does not run. view: memoryview of 4 KiB, the block to fill, fill: how
    much of it is, safe: how many bytes are safely in flash, size: of the slot. Raises OTAError
    423 (no second slot); OSError of the flash.
    """

    fill = safe = 0

    def __init__(self, view):
        self.view = view
        self._back = bytearray(_PART)
        self._cut = parts = []
        for at in range(0, _BLOCK, _PART):
            parts.append(view[at : at + _PART])
        own = running()
        here = own.info()[1]
        try:
            self.part = partition = own.get_next_update()
            _, slot, _, self.size, _, _ = partition.info()
            self.slot = slot
            if slot == here:
                raise OSError
        except OSError:
            raise OTAError(_NO_SLOT)
        # No record names what is not whole: one of an earlier failure would be taken for this
        # one's after the switch, and a second set_boot for the same slot can strand the device on
        # a bad image (ESP-IDF up to 5.5).
        forget(slot)
        # Without a record of ours, the boot loader would take slot 0 when the new image failed.
        if booting() != here:
            confirm(own)

    def add(self, n, last):
        """
        n: int, bytes that were put into the block; last: bool, no more will come. Writes the block
        when it is full. Raises OTAError, before the first erase 421 (no application image), 422
        (for another chip), 424 (combined image: upgrade with the application alone), then 450,
        451, 452.
        """
        self.fill = fill = self.fill + n
        if fill < _BLOCK and not last:
            return
        image = self.view
        for i in range(fill, _BLOCK):
            image[i] = 0xFF
        if not self.safe:
            # Byte 23: a SHA-256 is appended. Without it a flipped bit could go unseen at every
            # start.
            if image[0] != 0xE9 or not 1 <= image[1] <= 16 or image[23] != 1:
                raise OTAError(_NO_APPLICATION)
            if image[32:36] != b"\x32\x54\xcd\xab":
                raise OTAError(_COMBINED)
            if image[12:14] != head(running())[12:14]:
                raise OTAError(_OTHER_CHIP)
        block = self.safe // _BLOCK
        partition = self.part
        back = self._back
        code = _ERASE
        try:
            partition.ioctl(_IOCTL_ERASE, block)
            code = _WRITE
            partition.writeblocks(block, image, 0)
            code = _READ_BACK
            at = 0
            for part in self._cut:
                partition.readblocks(block, back, at)
                if back != part:
                    raise OSError
                at += _PART
        except OSError:
            raise OTAError(code)
        self.safe += fill
        self.fill = 0
