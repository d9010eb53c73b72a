"""
Tests of ota/slot.py: boot records as a cut leaves them, images as they should not be, flash that
fails.

The device is fresh: ota_0 runs, ota_1 is free. Source of the expected values: ESP-IDF
esp_flash_partitions.h, bootloader_common_loader.c, esp_app_format.h; the codes in
docs/protocol.md.
"""

import unittest

import bootrecords as boot
import images
import micropython
from esp32 import Partition

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
        n = min(len(writer.view) - writer.filled, len(data) - at)
        writer.view[writer.filled : writer.filled + n] = data[at : at + n]
        at += n
        writer.add(n, at == len(data))


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

    def readblocks(self, block, buf, offset):
        if self._fails == "read":
            raise OSError(-24578)
        self._partition.readblocks(block, buf, offset)
        if self._flip is not None:
            at = self._flip - block * _BLOCK - offset
            if 0 <= at < len(buf):
                buf[at] ^= 0x10


class Single:
    """The running Partition of a device whose table has no other slot."""

    def __init__(self, partition, raises):
        self._raises = raises
        self.readblocks = partition.readblocks
        self.info = partition.info

    def get_next_update(self):
        if self._raises:
            raise OSError(2)
        return self


class Row:
    """A Partition of an application that is no slot."""

    def __init__(self, subtype):
        self._subtype = subtype

    def info(self):
        return 0, self._subtype, 0x310000, 0x10000, "app", False


class Factory:
    """The class Partition over a table with a factory and a test application beside the slots."""

    TYPE_APP = Partition.TYPE_APP
    TYPE_DATA = Partition.TYPE_DATA

    @staticmethod
    def find(type, *subtype):
        rows = Partition.find(type, *subtype)
        if type == Partition.TYPE_APP:
            rows = [Row(0)] + rows + [Row(0x20)]
        return rows


class SlotCase(unittest.TestCase):
    def setUp(self):
        self._records = boot.read()
        self._running = slot.running

    def tearDown(self):
        slot.running = self._running
        slot.Partition = Partition
        boot.write(*self._records)


class RecordTests(SlotCase):
    def found(self):
        return [(state, named, sector) for state, named, _, sector in slot.records()]

    def test_checksum_of_esp_idf(self):
        # The number stands in ESP-IDF's own dumps for sequence 1.
        boot.write(boot.entry(1, boot.VALID, crc=0x4743989A), boot.BLANK)
        self.assertEqual(self.found(), [(boot.VALID, boot.HERE, 0)])

    def test_what_counts_as_a_record(self):
        for records, expected in (
            ((boot.BLANK, boot.BLANK), []),
            (((1, 2), boot.BLANK), [(2, 0x10, 0)]),
            ((boot.BLANK, (2, 0)), [(0, 0x11, 1)]),
            (((3, 2), (2, 4)), [(2, 0x10, 0), (4, 0x11, 1)]),
            # Higher numbers go round the slots.
            (((7, 2), (6, 2)), [(2, 0x10, 0), (2, 0x11, 1)]),
            (((0x80000000, 2), boot.BLANK), [(2, 0x11, 0)]),
            # Tied: the same number twice, as a repeated set_boot leaves it.
            (((2, 0), (2, 3)), [(0, 0x11, 0), (3, 0x11, 1)]),
            # The state is not under the checksum: torn, it counts.
            (((1, 2), (2, 0xFFFFFFF1)), [(2, 0x10, 0), (0xFFFFFFF1, 0x11, 1)]),
            (((1, 2), (2, boot.UNDEFINED)), [(2, 0x10, 0), (boot.UNDEFINED, 0x11, 1)]),
            # Torn in the number or in the checksum.
            (((1, 2), boot.entry(2, 0, crc=0xFFFFFFFF)), [(2, 0x10, 0)]),
            (((1, 2), boot.entry(2, 0, crc=0x4743989A)), [(2, 0x10, 0)]),
            ((b"\x02\0\0\0" + boot.BLANK[4:], (1, 2)), [(2, 0x10, 1)]),
            ((bytes(32), bytes(32)), []),
        ):
            boot.write(*records)
            self.assertEqual(self.found(), expected, records)

    def test_slots_are_counted_without_other_applications(self):
        boot.write((3, boot.VALID), (4, boot.VALID))
        slot.Partition = Factory
        self.assertEqual(self.found(), [(2, 0x10, 0), (2, 0x11, 1)])

    def test_record_that_set_boot_wrote(self):
        boot.write((1, boot.VALID), boot.BLANK)
        put(slot.Slot(), images.application())
        boot.slot(boot.OTHER).set_boot()
        self.assertEqual(self.found(), [(boot.VALID, boot.HERE, 0), (boot.NEW, boot.OTHER, 1)])

    def test_partition_of_a_record_is_where_it_lies(self):
        boot.write((1, boot.VALID), (2, boot.ABORTED))
        for _, _, partition, sector in slot.records():
            buf = bytearray(4)
            partition.readblocks(sector, buf, 0)
            self.assertEqual(buf[0], sector + 1)


class HeadTests(SlotCase):
    def test_head_of_the_running_image(self):
        self.assertEqual(slot.running().info()[1], boot.HERE)
        data = slot.head(slot.running())
        self.assertEqual(len(data), 208)
        self.assertEqual(data[0], 0xE9)

    def test_head_of_the_image_in_a_slot(self):
        image = images.application(version=b"3.1")
        put(slot.Slot(), image)
        self.assertEqual(slot.head(boot.slot(boot.OTHER)), image[:208])


class OpenTests(SlotCase):
    def test_slot_that_does_not_run(self):
        writer = slot.Slot()
        self.assertEqual(writer.slot, boot.OTHER)
        self.assertEqual(writer.partition.info()[1], boot.OTHER)
        self.assertEqual(writer.size, 0x180000)
        self.assertEqual((writer.filled, writer.written, len(writer.view)), (0, 0, _BLOCK))

    def test_no_second_slot(self):
        real = slot.running()
        for raises in (True, False):
            single = Single(real, raises)
            slot.running = lambda: single  # noqa: B023 (called in this round)
            self.assertEqual(code_of(slot.Slot), 423, raises)

    def test_which_records_go(self):
        valid = (1, boot.VALID)
        gone = None
        for records, expected in (
            # Failed before: so that a failure found later is its own.
            ((valid, (2, 4)), [valid, gone]),
            ((valid, (2, 3)), [valid, gone]),
            (((2, 4), (3, 2)), [gone, (3, 2)]),
            # Names the slot already, whatever its state: set_boot for it would make a second one.
            ((valid, (2, 0)), [valid, gone]),
            ((valid, (2, 1)), [valid, gone]),
            ((valid, (2, 2)), [valid, gone]),
            ((valid, (2, boot.UNDEFINED)), [valid, gone]),
            (((2, 2), (2, 2)), [gone, gone]),
            # What was before, and is not what boots: the next set_boot writes over it.
            (((3, 2), (2, 2)), [(3, 2), (2, 2)]),
            (((3, 2), (2, 0)), [(3, 2), (2, 0)]),
            (((3, 2), (1, 2)), [(3, 2), (1, 2)]),
            ((valid, boot.BLANK), [valid, gone]),
            ((boot.BLANK, boot.BLANK), [gone, gone]),
        ):
            boot.write(*records)
            slot.Slot()
            self.assertEqual(boot.states(), expected, records)

    def test_running_record_stays_whatever_boots(self):
        for state in (boot.NEW, boot.PENDING_VERIFY, boot.VALID, boot.UNDEFINED):
            for other in ((4, boot.VALID), (4, boot.ABORTED), (2, boot.VALID)):
                boot.write(other, (3, state))
                slot.Slot()
                self.assertEqual(boot.states()[1], (3, state), (state, other))

    def test_torn_record_stays(self):
        torn = boot.entry(2, boot.ABORTED, crc=0x4743989A)
        boot.write((1, boot.VALID), torn)
        slot.Slot()
        self.assertEqual(boot.read()[1], torn)


class CheckTests(SlotCase):
    def refused(self, data):
        # The code that data is refused with, and what was done to the flash before.
        writer = slot.Slot()
        writer.partition = watched = Watched(writer.partition)
        return code_of(put, writer, data), watched.erases, watched.writes

    def test_no_application_image(self):
        for data in (
            b"hello",
            b"\x7fELF" + bytes(_BLOCK),
            b"<html>" * 1000,
            bytes(_BLOCK),
            b"\xff" * _BLOCK,
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

    def test_nothing_is_erased_before_the_header_is_there(self):
        writer = slot.Slot()
        writer.partition = watched = Watched(writer.partition)
        data = images.application(_BLOCK)
        writer.view[: _BLOCK - 1] = data[: _BLOCK - 1]
        writer.add(_BLOCK - 1, False)
        self.assertEqual((watched.erases, watched.writes, writer.written), (0, 0, 0))
        writer.view[_BLOCK - 1 :] = data[_BLOCK - 1 : _BLOCK]
        writer.add(1, False)
        self.assertEqual((watched.erases, watched.writes, writer.written), (1, 1, _BLOCK))

    def test_refused_image_leaves_what_was_there(self):
        put(slot.Slot(), images.application(version=b"kept"))
        self.refused(images.head(chip=9))
        self.assertEqual(slot.head(boot.slot(boot.OTHER))[48:52], b"kept")


class WriteTests(SlotCase):
    def holds(self, data, at=0):
        # True when the slot holds data there; piece by piece, heap is scarce.
        piece = bytearray(256)
        view = memoryview(data)
        for begin in range(0, len(data), 256):
            wanted = view[begin : begin + 256]
            boot.slot(boot.OTHER).readblocks(0, piece, at + begin)
            if memoryview(piece)[: len(wanted)] != wanted:
                return False
        return True

    def test_image_as_it_came(self):
        for size in (640, _BLOCK, _BLOCK + 16, 2 * _BLOCK):
            image = images.application(size)
            put(slot.Slot(), image)
            self.assertTrue(self.holds(image), size)

    def test_short_last_block_ends_in_ff(self):
        writer = slot.Slot()
        put(writer, images.application(2 * _BLOCK))  # in flash, and in the buffer
        writer.written = 0
        put(writer, images.application(_BLOCK + 160))
        self.assertTrue(self.holds(b"\xff" * (_BLOCK - 160), _BLOCK + 160))

    def test_set_boot_takes_what_was_written(self):
        boot.write((1, boot.VALID), boot.BLANK)
        writer = slot.Slot()
        put(writer, images.application(5008))
        writer.partition.set_boot()
        self.assertEqual(Partition(Partition.BOOT).info()[1], boot.OTHER)

    def test_counts_after_each_block(self):
        writer = slot.Slot()
        image = images.application(5008)
        writer.view[:] = image[:_BLOCK]
        writer.add(1000, False)
        self.assertEqual((writer.filled, writer.written), (1000, 0))
        writer.add(_BLOCK - 1000, False)
        self.assertEqual((writer.filled, writer.written), (0, _BLOCK))
        writer.add(5008 - _BLOCK, True)
        self.assertEqual((writer.filled, writer.written), (0, 5008))

    def test_last_piece_that_fills_the_block(self):
        writer = slot.Slot()
        writer.partition = watched = Watched(writer.partition)
        put(writer, images.application(_BLOCK))
        self.assertEqual((watched.erases, writer.written), (1, _BLOCK))

    def test_resume_goes_on_behind_what_is_there(self):
        image = images.application(5008)
        put(slot.Slot(), memoryview(image)[:_BLOCK])
        writer = slot.Slot()  # after a restart
        writer.partition = watched = Watched(writer.partition)
        writer.written = _BLOCK
        put(writer, memoryview(image)[_BLOCK:])
        self.assertEqual(watched.erases, 1)
        self.assertTrue(self.holds(image))

    def test_from_zero_again_checks_the_header_again(self):
        writer = slot.Slot()
        put(writer, images.application(5008))
        writer.written = 0
        self.assertEqual(code_of(put, writer, b"hello"), 421)

    def test_running_slot_is_never_written(self):
        before = slot.head(slot.running())
        put(slot.Slot(), images.application(version=b"other"))
        self.assertEqual(slot.head(slot.running()), before)


class FaultTests(SlotCase):
    def failed(self, at=0, **faults):
        # (code, bytes that count as written) when the flash fails from block `at` on.
        writer = slot.Slot()
        image = memoryview(images.application(5008))
        put(writer, image[: at * _BLOCK])
        writer.partition = Watched(writer.partition, **faults)
        return code_of(put, writer, image[at * _BLOCK :]), writer.written

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
        writer = slot.Slot()
        writer.written = writer.size
        self.assertEqual(code_of(writer.add, _BLOCK, False), 450)

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
            writer = slot.Slot()
            writer.view[:] = images.application(_BLOCK)
            simulator.fault(k, kind)
            try:
                self.assertEqual(code_of(writer.add, _BLOCK, False), code, (k, kind))
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

    def readblocks(self, block, buf, offset):
        kept = self._kept
        for i in range(len(buf)):
            buf[i] = kept[offset + i]


class HeapTests(SlotCase):
    def test_block_takes_no_heap(self):
        writer = slot.Slot()
        writer.partition = Silent()
        put(writer, images.application(_BLOCK))
        add = writer.add
        micropython.heap_lock()
        try:
            add(_BLOCK, False)
            add(100, True)
        finally:
            micropython.heap_unlock()
        self.assertEqual(writer.written, 2 * _BLOCK + 100)
