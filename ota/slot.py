"""
The two slots: boot records, images, and blocks into the slot that does not run (erase, write, read back, switch).

A slot goes by the subtype of its partition: int, 16 = ota_0. Never writes the running slot, never touches the boot record that
counts. Stricter with images than `set_boot`, which takes some without segments or hash.
Source: MicroPython esp32.Partition; ESP-IDF OTA data, esp_app_format.h, esp_app_desc.h; docs/hardware.md.
"""

from binascii import crc32

from esp32 import Partition
from micropython import const

from .protocol import OTAError

_NO_APPLICATION = const(421)
_OTHER_CHIP = const(422)
_NO_SLOT = const(423)
_COMBINED = const(424)
_ERASE = const(450)
_WRITE = const(451)
_READ_BACK = const(452)
_SWITCH = const(453)

_BLOCK = const(4096)
_PART = const(512)  # what is read back at a time
_HEAD = const(208)  # bytes of an image that we look at
_IOCTL_BLOCKS = const(4)
_IOCTL_ERASE = const(6)

# States of a boot record ("OTA data"): NEW 0, PENDING_VERIFY 1, VALID 2, INVALID 3, ABORTED 4, UNDEFINED 0xFFFFFFFF.
_PENDING_VERIFY = const(1)


def slot_of(which):
    """The slot of Partition.RUNNING or Partition.BOOT, see above."""
    return Partition(which).info()[1]


def head(partition):
    """The first 208 bytes of the image in a partition: bytearray."""
    buf = bytearray(_HEAD)
    partition.readblocks(0, buf, 0)
    return buf


def records():
    """
    The boot records whose checksum fits, newest first: [(order int, state int, slot int, Partition, sector int)].

    Source: ESP-IDF bootloader_common.c; the checksum is over the number alone.
    """
    found = []
    slots = sum(p.info()[1] >> 4 == 1 for p in Partition.find(Partition.TYPE_APP))
    for otadata in Partition.find(Partition.TYPE_DATA, subtype=0):
        for sector in (0, 1):
            entry = bytearray(32)
            otadata.readblocks(sector, entry, 0)
            seq, state, crc = (int.from_bytes(entry[i : i + 4], "little") for i in (0, 24, 28))
            # A blank sector's checksum does not fit. A tie goes to sector 0.
            if crc32(entry[:4], 0xFFFFFFFF) == crc:
                found.append((sector - 2 * seq, state, 16 + (seq - 1) % slots, otadata, sector))
    found.sort(key=lambda r: r[0])
    return found


def failed(state):
    """True for the state of a record that does not count any more: INVALID, ABORTED."""
    return 3 <= state <= 4


def is_pending():
    """True while the running image is on trial: it must confirm itself, or the next restart goes back."""
    for _, state, slot, _, _ in records():
        if not failed(state):
            return state == _PENDING_VERIFY and slot == slot_of(Partition.RUNNING)
    return False


class Slot:
    """
    Writer of the slot that does not run. view: memoryview of the block to fill, filled: how much of it is, written: how many bytes are
    safely in flash, size: of the slot. Raises OTAError 423 (no second slot).
    """

    def __init__(self):
        self.block = block = bytearray(_BLOCK)
        self.view = view = memoryview(block)
        self._back = bytearray(_PART)
        self._parts = [view[i : i + _PART] for i in range(0, _BLOCK, _PART)]
        self.filled = self.written = 0
        running = Partition(Partition.RUNNING)
        self._own = head(running)
        try:
            self.partition = partition = running.get_next_update()
            self.slot = partition.info()[1]
            if partition.info() == running.info():
                raise AttributeError
        except (OSError, AttributeError):
            raise OTAError(_NO_SLOT)
        self.size = partition.ioctl(_IOCTL_BLOCKS, 0) * _BLOCK

    def take_up(self):
        """Reads the next block, as written before a restart, into `block`."""
        self.partition.readblocks(self.written // _BLOCK, self.block)
        self.written += _BLOCK

    def add(self, n, last):
        """
        n: int, bytes that were put into the block; last: bool, no more will come. Writes the block when it is full.
        Raises OTAError, before the first erase 421 (no application image), 422 (for another chip), 424 (combined image: upgrade with the
        application alone), then 450, 451, 452.
        """
        self.filled = filled = self.filled + n
        if filled < _BLOCK and not last:
            return
        image = self.block
        for i in range(filled, _BLOCK):
            image[i] = 0xFF
        if not self.written:
            if image[0] != 0xE9 or not 1 <= image[1] <= 16:
                raise OTAError(_NO_APPLICATION)
            if image[32:36] != b"\x32\x54\xcd\xab":
                raise OTAError(_COMBINED)
            if image[12:14] != self._own[12:14]:
                raise OTAError(_OTHER_CHIP)
            if image[23] != 1:  # no SHA-256 appended: a flipped bit could go unseen at every start
                raise OTAError(_NO_APPLICATION)
        block = self.written // _BLOCK
        partition = self.partition
        back = self._back
        code = _ERASE
        try:
            partition.ioctl(_IOCTL_ERASE, block)
            code = _WRITE
            partition.writeblocks(block, image, 0)
            code = _READ_BACK
            at = 0
            for part in self._parts:
                partition.readblocks(block, back, at)
                if back != part:
                    raise OSError(0)
                at += _PART
        except OSError as e:
            raise OTAError(code, e.errno)
        self.written += filled
        self.filled = 0

    def forget(self):
        """
        Takes away the records of earlier failures, so that one found after this switch is its own, and one that names this
        slot already: a second set_boot for the same slot can strand the device on a bad image (ESP-IDF up to 5.5).
        The record of the running slot is never touched.
        """
        booting = slot_of(Partition.BOOT) == self.slot
        for _, state, slot, otadata, sector in records():
            if failed(state) or booting and slot == self.slot:
                otadata.ioctl(_IOCTL_ERASE, sector)

    def switch(self):
        """Makes the slot the one to boot, after forget(). Raises OTAError 453 when ESP-IDF's own check refuses the image."""
        try:
            self.partition.set_boot()
        except OSError as e:
            raise OTAError(_SWITCH, e.errno)
