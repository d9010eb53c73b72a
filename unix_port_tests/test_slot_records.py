"""
Tests of ota/slot.py: boot records as a cut leaves them, and which of them go when a slot is
opened.

The device is fresh: ota_0 runs, ota_1 is free. Source of the expected values: ESP-IDF
esp_flash_partitions.h, bootloader_common_loader.c; the codes in docs/protocol.md.
"""

import unittest

import bootrecords as boot
import images
from esp32 import Partition

import ota.download
import ota.slot
from ota.agent import Journal
from ota.protocol import OTAError

slot = ota.slot


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


class RecordCase(unittest.TestCase):
    def setUp(self):
        self._records = boot.read()
        self._kept = slot.running, slot.records

    def tearDown(self):
        slot.running, slot.records = self._kept
        slot.Partition = Partition
        boot.write(*self._records)


class RecordTests(RecordCase):
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
        writer = ota.download.Slot(memoryview(bytearray(4608)), slot.other())
        writer.view[:640] = images.application(640)
        writer.write(640)
        slot.switch(writer.part, Journal())
        self.assertEqual(self.found(), [(boot.VALID, boot.HERE, 0), (boot.NEW, boot.OTHER, 1)])

    def test_partition_of_a_record_is_where_it_lies(self):
        boot.write((1, boot.VALID), (2, boot.ABORTED))
        for _, _, partition, sector in slot.records():
            buf = bytearray(4)
            partition.readblocks(sector, buf, 0)
            self.assertEqual(buf[0], sector + 1)


class OpenTests(RecordCase):
    def test_slot_that_does_not_run(self):
        part, number, size, chip = slot.other()
        self.assertEqual(number, boot.OTHER)
        self.assertEqual(part.info()[1], boot.OTHER)
        self.assertEqual(size, 0x180000)
        self.assertEqual(chip, b"\0\0")

    def test_writer_of_it_begins_empty(self):
        writer = ota.download.Slot(memoryview(bytearray(4608)), slot.other())
        self.assertEqual((writer.slot, writer.size), (boot.OTHER, 0x180000))
        self.assertEqual((writer.count, writer.done, len(writer.view)), (0, 0, 4096))

    def test_no_second_slot(self):
        real = slot.running()
        for raises in (True, False):
            single = Single(real, raises)
            slot.running = lambda: single  # noqa: B023 (called in this round)
            try:
                slot.other()
                self.fail("no error")
            except OTAError as e:
                self.assertEqual(e.code, 423, raises)

    def test_record_that_cannot_be_erased_is_an_error_of_the_flash(self):
        class Worn:
            def ioctl(self, op, sector):
                raise OSError(-24577)

        slot.records = lambda: [(boot.ABORTED, boot.OTHER, Worn(), 1)]
        with self.assertRaises(OSError):
            slot.other()

    def test_which_records_go(self):
        valid = (1, boot.VALID)
        gone = None
        for records, expected in (
            # Failed before: so that a failure found later is its own.
            ((valid, (2, 4)), [valid, gone]),
            ((valid, (2, 3)), [valid, gone]),
            (((2, 4), (3, 2)), [gone, (3, 2)]),
            # Names the slot, whatever its state: it must not boot what is half written.
            ((valid, (2, 0)), [valid, gone]),
            ((valid, (2, 1)), [valid, gone]),
            ((valid, (2, 2)), [valid, gone]),
            ((valid, (2, boot.UNDEFINED)), [valid, gone]),
            (((2, 2), (2, 2)), [gone, gone]),
            (((3, 2), (2, 2)), [(3, 2), gone]),
            (((3, 2), (2, 0)), [(3, 2), gone]),
            # Names the running one.
            (((3, 2), (1, 2)), [(3, 2), (1, 2)]),
            ((valid, boot.BLANK), [valid, gone]),
            ((boot.BLANK, boot.BLANK), [gone, gone]),
        ):
            boot.write(*records)
            slot.other()
            self.assertEqual(boot.states(), expected, records)

    def test_running_record_stays_whatever_boots(self):
        for state in (boot.NEW, boot.PENDING_VERIFY, boot.VALID, boot.UNDEFINED):
            for other in ((4, boot.VALID), (4, boot.ABORTED), (2, boot.VALID)):
                boot.write(other, (3, state))
                slot.other()
                self.assertEqual(boot.states()[1], (3, state), (state, other))

    def test_torn_record_stays(self):
        torn = boot.entry(2, boot.ABORTED, crc=0x4743989A)
        boot.write((1, boot.VALID), torn)
        slot.other()
        self.assertEqual(boot.read()[1], torn)
