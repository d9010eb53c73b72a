"""
Tests of ota/download.py, class Upgrade: the body of a file into the slot that does not run.

Source of the expected values: the codes in docs/protocol.md; docs/hardware.md for the boot
records.
"""

import images
from bootrecords import states
from esp32 import Partition
from fakes import END
from files import File, Image
from journals import read_journal
from upgrades import UpgradeCase, other

_BLOCK = 4096
_UNIT = 65536
_ROW = 512


class Watched:
    """
    The Partition of a slot that counts, and does not take the writes of block `skip` (int): the
    first time, or always.
    """

    def __init__(self, slot, skip=None, always=False):
        self._part = slot.part
        self._skip = skip
        self._always = always
        self.erases = self.writes = 0
        slot.part = self

    def ioctl(self, op, block):
        self.erases += 1
        return self._part.ioctl(op, block)

    def writeblocks(self, block, buf, offset):
        self.writes += 1
        if block != self._skip:
            self._part.writeblocks(block, buf, offset)
        elif not self._always:
            self._skip = None

    def readblocks(self, block, buf, offset=0):
        self._part.readblocks(block, buf, offset)


class SlotTests(UpgradeCase):
    def test_every_byte_lands_in_the_slot(self):
        for size in (300, 4095, 4096, 4097, 8192, 10000):
            file = File(size)
            self.begin(file)
            self.serve(file)
            self.run_job()
            self.assertInSlot(file)

    def test_progress_grows_to_95_then_96(self):
        file = File(5 * _BLOCK)
        self.begin(file)
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n", self.in_blocks(file))
        found = self.run_job()
        self.assertEqual(found[-1], 96)
        self.assertEqual(found, sorted(found))
        for expected in (0, 19, 38, 57, 76):
            self.assertIn(expected, found)
        self.assertTrue(found[-2] <= 95)

    def in_blocks(self, file):
        for at in range(0, file.size, _BLOCK):
            for part in file.parts(at, at + _BLOCK):
                yield part
            yield 150

    def test_pieces_of_any_length(self):
        # Also where 512 bytes would reach past the end of the block.
        for sizes in ((1, 511, 512, 440, 512), (500,), (37, 501)):
            file = File(2 * _BLOCK + 100)
            self.begin(file)
            self.net.script(b"HTTP/1.0 200 OK\r\n\r\n", self.in_pieces(file, sizes), END)
            self.run_job()
            self.assertInSlot(file)

    def in_pieces(self, file, sizes):
        # One call to read finds no more than one of them.
        at = i = 0
        while at < file.size:
            end = min(at + sizes[i % len(sizes)], file.size)
            for part in file.parts(at, end):
                yield part
            yield 10
            at = end
            i += 1

    def test_size_that_was_not_told(self):
        file = File(6000)
        self.begin(file, size=None)
        self.serve(file)
        self.run_job()
        self.assertInSlot(file)

    def test_step_ends_in_time_while_it_drips(self):
        file = File(4096)
        self.begin(file)
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n", self.dripping(file))
        for _ in range(200):
            before = self.clock.now
            self.job.step()
            self.assertTrue(self.clock.since(before) <= 1000)

    def test_drip_that_never_pauses_is_437_in_the_end(self):
        file = File(4096)
        self.begin(file, total_s=10)
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n", self.dripping(file))
        began = self.clock.now
        self.assertFails(437)
        self.assertTrue(9000 <= self.clock.since(began) <= 11000)

    def dripping(self, file):
        for byte in file.row(0):
            yield 37
            yield bytes((byte,))

    def test_larger_than_the_slot_is_420_and_erases_nothing(self):
        size = other().info()[3]
        for told in (size + 1, None):
            before = bytearray(64)
            other().readblocks(0, before, 0)
            self.begin(File(300), size=told)
            self.serve(File(300), length=size + 1)
            self.assertFails(420)
            after = bytearray(64)
            other().readblocks(0, after, 0)
            self.assertEqual(before, after)

    def test_text_is_421_and_no_connection_stays(self):
        self.begin(File(300), size=5000)
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n", iter([b"no image!!" * 50] * 10))
        self.assertFails(421)
        self.assertTrue(self.net.sockets[0].closed)

    def test_boot_partition_is_not_touched(self):
        before = states()
        file = File(5000)
        self.begin(file)
        self.serve(file)
        self.run_job()
        self.assertEqual(states(), before)


class DigestTests(UpgradeCase):
    def test_other_digest_is_440_after_a_second_round(self):
        file = File(5000)
        self.begin(file, sign="0" * 32)
        self.serve(file)
        self.serve(file)
        self.assertFails(440)
        self.assertEqual(self.ranges(), [0, 0])

    def test_second_round_mends_what_the_flash_did_not_take(self):
        file = File(9000, 5)
        self.begin(file)
        self.serve(file)
        self.serve(file)
        kept = Watched(self.job.slot, skip=1)
        self.run_job()
        self.assertEqual(self.ranges(), [0, 0])
        self.assertEqual((kept.erases, kept.writes), (4, 4))  # the three, and the one again
        self.assertInSlot(file)

    def test_second_round_names_the_flash_that_does_not_take_it(self):
        file = File(9000, 6)
        self.begin(file)
        self.serve(file)
        self.serve(file)
        Watched(self.job.slot, skip=1, always=True)
        self.assertFails(452)
        self.assertEqual(self.ranges(), [0, 0])

    def test_after_a_resume_it_begins_anew(self):
        file = File(9000)
        self.begin(file)
        self.serve(file, 0, 5000)
        self.serve(File(9000, 1), 5000)
        self.serve(file)
        self.run_job()
        self.assertEqual(self.ranges(), [0, 5000, 0])
        self.assertInSlot(file)

    def test_after_a_resume_it_begins_anew_once_only(self):
        file, wrong = File(9000), File(9000, 1)
        self.begin(file)
        self.serve(file, 0, 5000)
        self.serve(wrong, 5000)
        self.serve(wrong)
        self.assertFails(440)
        self.assertEqual(self.ranges(), [0, 5000, 0])

    def test_second_round_may_be_resumed_too_but_is_the_last(self):
        file, wrong = File(9000), File(9000, 1)
        self.begin(file)
        self.serve(file, 0, 5000)
        self.serve(wrong, 5000)
        self.serve(file, 0, 6000)
        self.serve(wrong, 6000)
        self.assertFails(440)
        self.assertEqual(self.ranges(), [0, 5000, 0, 6000])

    def test_resumed_connection_is_no_reason_to_fail(self):
        file = File(20000)
        self.begin(file)
        self.serve(file, 0, 1)
        self.serve(file, 1, 4097)
        self.serve(file, 4097, 12288)
        self.serve(file, 12288)
        self.run_job()
        self.assertEqual(self.ranges(), [0, 1, 4097, 12288])
        self.assertInSlot(file)


class RestartTests(UpgradeCase):
    def interrupted(self, file, at):
        # The power goes after so many bytes; what is left is the slot and the journal.
        self.begin(file)
        self.serve(file, 0, at, last=60000)
        for _ in range(100):
            self.job.step()
            if self.job.done == at:
                break
        self.assertEqual(self.job.done, at)
        del self.net.sockets[:]

    def test_goes_on_at_the_last_note(self):
        file = File(_UNIT + 3 * _BLOCK + 100)
        self.interrupted(file, _UNIT + 2 * _BLOCK + 50)
        self.assertEqual(read_journal().units, 1)
        self.begin(file)
        self.serve(file, _UNIT)
        self.run_job()
        self.assertEqual(self.ranges(), [_UNIT])
        self.assertInSlot(file)

    def test_before_the_first_note_it_begins_anew(self):
        file = File(3 * _BLOCK)
        self.interrupted(file, 2 * _BLOCK)
        self.begin(file)
        self.serve(file)
        self.run_job()
        self.assertEqual(self.ranges(), [0])

    def test_complete_slot_needs_no_connection(self):
        file = File(_UNIT)
        self.begin(file)
        self.serve(file)
        self.run_job()
        del self.net.sockets[:]
        self.begin(file)
        self.run_job()
        self.assertEqual(self.net.sockets, [])

    def test_another_file_begins_anew(self):
        self.interrupted(File(_UNIT + _BLOCK), _UNIT + 10)
        file = File(_UNIT + _BLOCK, 1)
        self.begin(file)
        self.serve(file)
        self.run_job()
        self.assertEqual(self.ranges(), [0])
        self.assertInSlot(file)

    def test_another_slot_begins_anew(self):
        file = File(_UNIT + _BLOCK)
        self.interrupted(file, _UNIT + 10)
        self.journal.slot = 0
        self.journal.write(self.journal.state)
        self.begin(file)
        self.serve(file)
        self.run_job()
        self.assertEqual(self.ranges(), [0])

    def test_size_that_was_not_told_begins_anew(self):
        file = File(_UNIT + _BLOCK)
        self.interrupted(file, _UNIT + 10)
        self.begin(file, size=None)
        self.serve(file)
        self.run_job()
        self.assertEqual(self.ranges(), [0])

    def test_spoilt_slot_begins_anew(self):
        file = File(_UNIT + _BLOCK)
        self.interrupted(file, _UNIT + 10)
        slot = other()
        slot.ioctl(6, 3)
        self.begin(file)
        self.serve(file, _UNIT)
        self.serve(file)
        self.run_job()
        self.assertEqual(self.ranges(), [_UNIT, 0])
        self.assertInSlot(file)

    def test_note_is_taken_back_when_it_begins_anew(self):
        file = File(_UNIT + _BLOCK)
        self.interrupted(file, _UNIT + 10)
        other().ioctl(6, 3)
        self.begin(file)
        self.serve(file, _UNIT)
        self.serve(file, 0, 2 * _BLOCK, last=60000)
        self.run_job_until_position(2 * _BLOCK)
        self.assertEqual(read_journal().units, 0)

    def run_job_until_position(self, position):
        for _ in range(200):
            self.job.step()
            if len(self.net.sockets) == 2 and self.job.done == position:
                return
        self.fail("never there")


class SwitchTests(UpgradeCase):
    def image(self, version=b"", spoilt=False):
        # An image that boots, unless a byte of it is turned.
        image = images.application(640, version)
        if spoilt:
            image[400] ^= 1
        file = Image(bytes(image))
        self.begin(file)
        self.serve(file)
        self.run_job()
        return file

    def test_new_image_is_the_one_to_boot(self):
        from ota.slot import switch

        self.image()
        switch(self.job.slot.part, self.journal)
        self.assertEqual(Partition(Partition.BOOT).info(), other().info())

    def test_journal_knows_that_it_was_switched(self):
        from ota.slot import switch

        self.image()
        switch(self.job.slot.part, self.journal)
        journal = read_journal()
        self.assertEqual((journal.state, journal.version, journal.code), (3, "2.0", 0))
        self.assertEqual(journal.slot, other().info()[1])

    def test_version_is_noted_for_exactly_this_build(self):
        from ota.slot import switch

        self.image()
        switch(self.job.slot.part, self.journal)
        noted = getattr(read_journal(), "v%d" % other().info()[1])
        build = "".join("%02x" % byte for byte in images.BUILD[:8])
        self.assertEqual(noted, build + "2.0")

    def test_image_that_the_chip_refuses_is_453(self):
        from ota.slot import switch

        before = Partition(Partition.BOOT).info()
        self.image(spoilt=True)
        self.assertCode(453, switch, self.job.slot.part, self.journal)
        self.assertEqual(Partition(Partition.BOOT).info(), before)
