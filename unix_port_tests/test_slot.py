"""
Tests of the class Slot of ota/download.py: images as they should not be, blocks on their way into
the slot, flash that fails. Boot records: test_slot_records.py.

The device is fresh: ota_0 runs, ota_1 is free. Source of the expected values: ESP-IDF
esp_app_format.h; the codes in docs/protocol.md.
"""

import unittest

import bootrecords as boot
import images
import micropython
from esp32 import Partition

import ota.download
import ota.slot
from ota.protocol import OTAError

slot = ota.slot

_BLOCK = 4096


def code_of(call, *arguments):
    # The code of the OTAError that the call raises, None when it raises none.
    try:
        call(*arguments)
    except OTAError as e:
        return e.code
    return None


def put(writer, data):
    # Gives data to the writer as a download does: as much as there is room for.
    at = 0
    while at < len(data):
        n = min(len(writer.view) - writer.count, len(data) - at)
        writer.view[writer.count : writer.count + n] = data[at : at + n]
        at += n
        writer.write(n)


class Watched:
    """
    A Partition that counts what is asked of it, and fails as told. fails: "erase", "write",
    "read", None; flip: which byte of the slot reads with one bit turned.
    """

    def __init__(self, partition, fails=None, flip=None):
        self._partition = partition
        self._fails = fails
        self._flip = flip
        self.erases = self.writes = 0

    def ioctl(self, op, arg):
        self.erases += 1
        if self._fails == "erase":
            raise OSError(-24577)
        return self._partition.ioctl(op, arg)

    def writeblocks(self, block, buf, offset):
        self.writes += 1
        if self._fails == "write":
            raise OSError(-24577)
        self._partition.writeblocks(block, buf, offset)

    def readblocks(self, block, buf, offset=0):
        if self._fails == "read":
            raise OSError(-24578)
        self._partition.readblocks(block, buf, offset)
        if self._flip is not None:
            at = self._flip - block * _BLOCK - offset
            if 0 <= at < len(buf):
                buf[at] ^= 0x10


class SlotCase(unittest.TestCase):
    def setUp(self):
        self._records = boot.read()
        self.writer = ota.download.Slot(memoryview(bytearray(_BLOCK + 512)), slot.other())
        self.partition = self.writer.part

    def tearDown(self):
        boot.write(*self._records)

    def again(self, written=0, **watched):
        # The writer as after a restart: `written` bytes are in the slot. One for all, heap is
        # scarce. watched: see Watched.
        writer = self.writer
        writer.count = 0
        writer.done = written
        writer.part = Watched(self.partition, **watched)
        return writer


class HeadTests(SlotCase):
    def test_head_of_the_running_image(self):
        self.assertEqual(slot.running().info()[1], boot.HERE)
        data = slot.head(slot.running())
        self.assertEqual(len(data), 208)
        self.assertEqual(data[0], 0xE9)

    def test_head_of_the_image_in_a_slot(self):
        image = images.application(version=b"3.1")
        put(self.writer, image)
        self.assertEqual(slot.head(boot.slot(boot.OTHER)), image[:208])


class CheckTests(SlotCase):
    def refused(self, data):
        # The code that data is refused with, and what was done to the flash before.
        writer = self.again()
        code = code_of(put, writer, data)
        return code, writer.part.erases, writer.part.writes

    def test_no_application_image(self):
        for data in (
            b"hello",
            b"\x7fELF" + bytes(300),
            b"<html>" * 50,
            bytes(300),
            b"\xff" * 300,
            b"\xe9",
            images.head(magic=0xE8),
            images.head(segments=0),
            images.head(segments=17),
            images.head(segments=255),
            images.head(hashed=0),
            images.head(hashed=2),
            images.head(hashed=255),
        ):
            self.assertEqual(self.refused(data), (421, 0, 0), data[:32])

    def test_image_for_another_chip(self):
        for chip in (2, 5, 9, 0x100):  # S2, C3, S3, and the high byte
            self.assertEqual(self.refused(images.head(chip=chip)), (422, 0, 0), chip)

    def test_combined_image(self):
        # Boot loader, table and application in one file: no descriptor at 32.
        for app in (0, 0xFFFFFFFF, 0xABCD5433, 0xABCC5432):
            self.assertEqual(self.refused(images.head(app=app)), (424, 0, 0), app)

    def test_combined_image_of_another_chip_is_named_combined(self):
        # Its cure comes first: the application of that build tells the chip by itself.
        self.assertEqual(self.refused(images.head(app=0, chip=9)), (424, 0, 0))

    def test_segments_that_are_taken(self):
        for segments in (1, 7, 16):
            code, erases, _ = self.refused(images.head(segments=segments))
            self.assertEqual((code, erases), (None, 1), segments)

    def test_refused_image_leaves_what_was_there(self):
        put(self.writer, images.application(version=b"kept"))
        self.refused(images.head(chip=9))
        self.assertEqual(slot.head(boot.slot(boot.OTHER))[48:52], b"kept")


class WriteTests(SlotCase):
    def holds(self, data, at=0):
        # True when the slot holds data there; piece by piece, heap is scarce.
        piece = bytearray(256)
        view = memoryview(data)
        for begin in range(0, len(data), 256):
            wanted = view[begin : begin + 256]
            self.partition.readblocks(0, piece, at + begin)
            if memoryview(piece)[: len(wanted)] != wanted:
                return False
        return True

    def test_image_as_it_came(self):
        for size in (640, _BLOCK, _BLOCK + 16, 2 * _BLOCK):
            image = images.application(size)
            put(self.again(), image)
            self.assertTrue(self.holds(image), size)

    def test_short_last_block_ends_in_ff(self):
        put(self.writer, images.application(2 * _BLOCK))  # in flash, and in the buffer
        put(self.again(), images.application(_BLOCK + 160))
        self.assertTrue(self.holds(b"\xff" * (_BLOCK - 160), _BLOCK + 160))

    def test_set_boot_takes_what_was_written(self):
        boot.write((1, boot.VALID), boot.BLANK)
        put(self.writer, images.application(5008))
        self.writer.part.set_boot()
        self.assertEqual(Partition(Partition.BOOT).info()[1], boot.OTHER)

    def test_counts_after_each_block(self):
        writer = self.writer
        writer.view[:] = images.application(_BLOCK)
        writer.write(_BLOCK)
        self.assertEqual(writer.done, _BLOCK)
        writer.write(900)
        self.assertEqual(writer.done, _BLOCK + 900)

    def test_what_is_there_already_is_not_erased(self):
        image = images.application(2 * _BLOCK + 160)
        put(self.writer, image)
        writer = self.again()
        put(writer, image)
        self.assertEqual((writer.part.erases, writer.part.writes, writer.done), (0, 0, len(image)))

    def test_one_bit_that_differs_costs_one_erase(self):
        image = images.application(2 * _BLOCK)
        put(self.again(), image)
        for at in (_BLOCK, _BLOCK + 511, 2 * _BLOCK - 1):  # each differs from the one before
            image[at] ^= 1
            writer = self.again()
            put(writer, image)
            self.assertEqual((writer.part.erases, writer.part.writes), (1, 1), at)
            self.assertTrue(self.holds(image), at)

    def test_buffer_holds_what_is_in_flash(self):
        # So that the digest is that of the flash, whatever was meant to be written.
        for exact in (0, 1):
            image = images.application(_BLOCK)
            writer = self.again(flip=77)
            writer.view[:] = image
            if not exact:
                writer.write(_BLOCK)
                self.assertEqual(writer.view[77], image[77] ^ 0x10)
            writer.exact = exact
            writer.done = 0
            writer.view[:] = image
            self.assertEqual(code_of(writer.write, _BLOCK), 452 if exact else None)

    def test_last_piece_that_fills_the_block(self):
        put(self.again(), images.application(_BLOCK))
        self.assertEqual((self.writer.part.erases, self.writer.done), (1, _BLOCK))

    def test_resume_goes_on_behind_what_is_there(self):
        image = images.application(5008)
        put(self.writer, memoryview(image)[:_BLOCK])
        put(self.again(_BLOCK), memoryview(image)[_BLOCK:])
        self.assertEqual(self.writer.part.erases, 1)
        self.assertTrue(self.holds(image))

    def test_from_zero_again_checks_the_header_again(self):
        put(self.writer, images.application(5008))
        self.assertEqual(code_of(put, self.again(), b"hello"), 421)

    def test_running_slot_is_never_written(self):
        before = slot.head(slot.running())
        put(self.writer, images.application(version=b"other"))
        self.assertEqual(slot.head(slot.running()), before)


class FaultTests(SlotCase):
    def setUp(self):
        super().setUp()
        self.image = images.application(_BLOCK + 16)

    def failed(self, at=0, **faults):
        # (code, bytes that count as written) when the flash fails from block `at` on.
        for block in (0, 1):  # what is there already would not be written
            self.partition.ioctl(6, block)
        writer = self.again()
        put(writer, memoryview(self.image)[: at * _BLOCK])
        writer = self.again(at * _BLOCK, **faults)
        writer.exact = 1
        return code_of(put, writer, memoryview(self.image)[at * _BLOCK :]), writer.done

    def test_operation_that_fails(self):
        for fails, code in (("erase", 450), ("write", 451), ("read", 452)):
            for at in (0, 1):
                self.assertEqual(self.failed(at, fails=fails), (code, at * _BLOCK), fails)

    def test_read_back_that_differs_by_one_bit(self):
        for flip in (0, 511, 512, _BLOCK - 1):
            self.assertEqual(self.failed(flip=flip), (452, 0), flip)
        self.assertEqual(self.failed(flip=_BLOCK), (452, _BLOCK))

    def test_padding_is_read_back_as_well(self):
        self.assertEqual(self.failed(flip=2 * _BLOCK - 1), (452, _BLOCK))

    def test_block_past_the_end_of_the_slot(self):
        self.writer.done = self.writer.size
        self.assertEqual(code_of(self.writer.write, _BLOCK), 452)

    def test_code_of_the_flash_chip_itself(self):
        try:
            import simulator
        except ImportError:
            raise unittest.SkipTest("no simulator: the flash cannot be made to fail")
        # Operations: 0 the erase, 1 to 16 the pages.
        for k, kind, code in (
            (0, "error", 450),
            (1, "error", 451),
            (16, "error", 451),
            (1, "skip", 452),
        ):
            writer = self.again()
            writer.exact = 1
            writer.view[:] = memoryview(self.image)[:_BLOCK]
            simulator.fault(k, kind)
            try:
                self.assertEqual(code_of(writer.write, _BLOCK), code, (k, kind))
            finally:
                simulator.disarm()


class Silent:
    """Flash that needs no heap: what is written reads back."""

    def __init__(self):
        self._kept = bytearray(_BLOCK)

    def ioctl(self, op, arg):
        return 0

    def writeblocks(self, block, buf, offset):
        kept = self._kept
        for i in range(_BLOCK):
            kept[i] = buf[i]

    def readblocks(self, block, buf, offset=0):
        kept = self._kept
        for i in range(len(buf)):
            buf[i] = kept[offset + i]


class HeapTests(SlotCase):
    def test_block_takes_no_heap(self):
        writer = self.writer
        writer.part = Silent()
        put(writer, images.application(_BLOCK))
        add = writer.write
        micropython.heap_lock()
        try:
            add(_BLOCK)
            add(100)
        finally:
            micropython.heap_unlock()
        self.assertEqual(writer.done, 2 * _BLOCK + 100)
