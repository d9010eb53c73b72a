"""
Tests of ota/slot.py: a new image from the switch on, over the boot loader itself.

Source of the expected values: docs/hardware.md, "Boot loader".
"""

import unittest

import bootrecords as boot
import images
from journals import read_journal
from trials import DONE, SWITCHING, Agent, Command, Restart, TrialCase


class BootLoaderTests(TrialCase):
    def setUp(self):
        super().setUp()
        try:
            import simulator
        except ImportError:
            raise unittest.SkipTest("no simulator: the boot loader cannot be run")
        self.restart = simulator.restart
        boot.write((1, boot.VALID), boot.BLANK)
        self.other = boot.slot(boot.OTHER)
        self.write(images.application(version=b"2.0.0"))
        self.journal.start(Command, SWITCHING, boot.OTHER)
        self.other.set_boot()

    def tearDown(self):
        super().tearDown()
        self.restart()

    def write(self, image):
        self.other.ioctl(6, 0)
        self.other.writeblocks(0, image, 0)

    def start(self, label):
        # The device starts from that slot: what begin() returns.
        self.assertEqual(self.restart(), label)
        self.load()
        self.running = None  # what is in the slot
        self.agent = Agent()
        self.journal = read_journal()
        return self.begin()

    def test_new_image_confirms_itself_and_stays(self):
        self.assertIs(self.start("ota_1"), True)
        self.assertEqual(self.agent.version, "2.0.0")
        self.agent.tested = False
        self.assertIs(self.trial.step(self.agent, self.journal), True)
        self.assertFalse(self.start("ota_1"))
        self.assertEqual(self.agent.version, "2.0.0")
        self.assertEqual(self.remembered(), (DONE, 0))

    def test_image_that_does_not_confirm_itself_is_rolled_back(self):
        self.assertIs(self.start("ota_1"), True)
        self.assertFalse(self.start("ota_0"))
        self.assertEqual(self.remembered(), (DONE, 460))

    def test_image_that_cannot_confirm_itself_is_rolled_back_with_453(self):
        import simulator

        for faults in (((0, "error"),), ((1, "error"),), ((0, "skip"), (1, "skip"))):
            self.assertIs(self.start("ota_1"), True)
            self.agent.tested = False
            for fault in faults:
                simulator.fault(*fault)
            with self.assertRaises(Restart):
                self.trial.step(self.agent, self.journal)
            self.assertFalse(self.start("ota_0"))
            self.assertEqual(self.remembered(), (DONE, 453), faults)
            # The same once more, as the next upgrade does it.
            boot.write((1, boot.VALID), boot.BLANK)
            self.journal.start(Command, SWITCHING, boot.OTHER)
            boot.slot(boot.OTHER).set_boot()

    def test_image_whose_confirmation_could_not_be_read_back_goes(self):
        import simulator

        self.assertIs(self.start("ota_1"), True)
        self.agent.tested = False
        simulator.fault(1, "unread")
        with self.assertRaises(Restart):
            self.trial.step(self.agent, self.journal)
        self.assertFalse(self.start("ota_0"))
        self.assertEqual(self.remembered(), (DONE, 453))

    def test_boot_loader_that_could_not_note_its_start(self):
        # An erase alone, or a record that does not fit: the image runs all the same, unconfirmed.
        self.assertEqual(self.restart(), "ota_1")
        for record in (boot.BLANK, boot.entry(2, boot.PENDING_VERIFY, crc=0), (2, boot.NEW)):
            boot.write((1, boot.VALID), record)
            self.load()
            self.running = None  # what is in the slot
            self.agent = Agent()
            self.journal = read_journal()
            self.assertIs(self.begin(), True, record)
            self.assertEqual(self.machine.timeouts[-1], 120000)
            self.agent.tested = False
            self.assertIs(self.trial.step(self.agent, self.journal), True, record)
            self.assertFalse(self.start("ota_1"))
            self.assertEqual(self.remembered(), (DONE, 0))
            self.journal.write(SWITCHING)

    def test_image_that_failed_and_comes_back_is_not_tried_for_ever(self):
        # Nothing else starts.
        self.running = images.head(version=b"2.0.0")
        self.assertEqual(self.restart(), "ota_1")
        boot.write(boot.BLANK, boot.BLANK)
        self.journal.code = 461
        self.journal.write(SWITCHING)
        self.load()
        self.journal = read_journal()
        self.assertFalse(self.begin())
        self.assertEqual(self.remembered(), (DONE, 0))

    def test_image_that_the_boot_loader_refuses(self):
        self.write(b"")  # it went bad after the switch
        self.assertFalse(self.start("ota_0"))
        self.assertEqual(self.remembered(), (DONE, 460))
