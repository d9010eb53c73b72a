"""
The two slots: which runs, which boots, and the boot records that decide it; loaded for a start, a
switch, a confirmation.

A slot goes by the subtype of its partition: int, 16 = ota_0. Never erases the boot record of the
running slot by itself. Source: MicroPython esp32.Partition; ESP-IDF OTA data, esp_app_format.h,
esp_app_desc.h; docs/hardware.md.
"""

from binascii import crc32
from struct import unpack

from esp32 import Partition

from . import OTAError

_NO_SLOT = const(423)
_SWITCH = const(453)

_HEAD = const(208)  # bytes of an image that we look at
_IOCTL_ERASE = const(6)
_VALID = const(2)  # state of a boot record
_SWITCHING = const(3)  # state of the journal's record, see there


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


def confirm(part):
    """
    Makes the running Partition the one that boots, and its record VALID. True when that is what
    is read back: flash may fail silently. Raises OSError of the flash.
    """
    slot = part.info()[1]
    # It marks the record that is active, so that has to be ours.
    if booting() != slot:
        part.set_boot()
    part.mark_app_valid_cancel_rollback()
    for record in records():
        if record[:2] == (_VALID, slot):
            return True


def forget(slot):
    """Erases each boot record that names a slot (int), so that it does not boot."""
    for _, named, otadata, sector in records():
        if named == slot:
            otadata.ioctl(_IOCTL_ERASE, sector)


def build(part):
    """Which build the image in a Partition is: str, the first 8 bytes of the ELF's SHA-256."""
    return head(part)[176:184].hex()


def other():
    """
    The slot that does not run, made ready to be written: (Partition, slot int, size int bytes, the
    chip's id in the running image).
    Raises OTAError 423 (there is none); OSError of the flash.
    """
    own = running()
    here = own.info()[1]
    try:
        part = own.get_next_update()
        _, slot, _, size, _, _ = part.info()
        if slot == here:
            raise OSError
    except OSError:
        raise OTAError(_NO_SLOT)
    # No record names what is not whole: one of an earlier failure would be taken for this one's
    # after the switch, and a second set_boot for the same slot can strand the device on a bad
    # image (ESP-IDF up to 5.5).
    forget(slot)
    # Without a record of ours, the boot loader would take slot 0 when the new image failed.
    if booting() != here:
        confirm(own)
    return part, slot, size, head(own)[12:14]


def switch(part, journal):
    """Makes the image in a Partition the one to boot, and notes that. Raises OTAError 453."""
    slot = part.info()[1]
    # For an image that does not tell its version, see trial.begin.
    setattr(journal, "v%d" % slot, build(part) + journal.version)
    journal.write(_SWITCHING)
    try:
        part.set_boot()
        if booting() != slot:  # flash may fail silently
            raise OSError
    except OSError:  # or ESP-IDF's own check refuses the image
        forget(slot)  # it must not boot after that
        raise OTAError(_SWITCH)
