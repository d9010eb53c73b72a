"""
Tests of ota/slot.py: how a new image proves itself, or goes.

The device is fresh: ota_0 runs. Source of the expected values: docs/hardware.md, "Starting up";
the codes in docs/protocol.md.
"""

import time
import unittest

import bootrecords as boot
from journals import read_journal
from trials import DONE, FETCHING, SWITCHING, TOLD, Command, Restart, TrialCase


class StepCase(TrialCase):
    def setUp(self):
        super().setUp()
        boot.write((1, boot.PENDING_VERIFY), boot.BLANK)
        self.agent.version = Command.version

    def step(self, tested, late=False, test=None, state=SWITCHING):
        # One step: what it returned, "restart" when it restarted. test: what the self-test does.
        self.journal.start(Command, state, boot.HERE)
        self.agent.tested = tested
        self.agent.due = time.ticks_add(time.ticks_ms(), 0 if late else 100000)
        self.agent.self_test = test
        self.agent._also = self.trial.step
        try:
            return self.trial.step(self.agent, self.journal)
        except Restart:
            return "restart"

    def is_confirmed(self):
        return boot.states()[0] == (1, boot.VALID)

    def waits(self):
        self.assertFalse(self.is_confirmed())
        self.assertEqual(self.remembered(), (SWITCHING, 0))
        self.assertEqual(self.machine.timeouts, [])
        self.assertEqual(self.journal.late, 0)

    def failed(self, code):
        self.assertFalse(self.is_confirmed())
        self.assertEqual(self.remembered(), (SWITCHING, code))
        self.assertEqual(self.machine.timeouts, [])
        self.assertEqual(self.journal.late, 0)


class StepTests(StepCase):
    def test_waits_for_the_connection(self):
        for test in (None, lambda: True, lambda: False):
            self.assertFalse(self.step(None, test=test))
            self.waits()
            self.assertIsNone(self.agent.tested)

    def test_self_test_is_not_asked_before_the_connection(self):
        asked = []
        self.step(None, test=lambda: asked.append(1))
        self.step(None, late=True, test=lambda: asked.append(1))
        self.assertEqual(asked, [])

    def test_confirms_as_soon_as_the_self_test_passed(self):
        for test in (None, lambda: True, lambda: 1):
            boot.write((1, boot.PENDING_VERIFY), boot.BLANK)
            self.assertIs(self.step(False, test=test), True)
            self.assertTrue(self.is_confirmed())
            self.assertEqual(self.remembered(), (DONE, 0))

    def test_self_test_is_asked_again(self):
        answers = [None, None, True]
        for expected in (False, False):
            self.assertFalse(self.step(False, test=lambda: answers.pop(0)), expected)
            self.waits()
            self.assertIs(self.agent.tested, False)
        self.assertIs(self.step(False, test=lambda: answers.pop(0)), True)
        self.assertTrue(self.is_confirmed())

    def test_confirms_also_at_the_last_moment(self):
        # A self-test that passes too late is not called bad.
        for test in (None, lambda: True):
            boot.write((1, boot.PENDING_VERIFY), boot.BLANK)
            self.assertIs(self.step(False, late=True, test=test), True)
            self.assertTrue(self.is_confirmed())
            self.assertEqual(self.remembered(), (DONE, 0))

    def test_watchdog_is_set_long_after_the_trial(self):
        self.step(False)
        self.assertEqual(self.machine.timeouts, [0x7FFFFFFF])  # the longest that there is
        self.assertIs(self.agent.wdt, self.machine)

    def test_late_failure_is_armed_with_the_confirmation(self):
        self.step(False)
        self.assertEqual(read_journal().late, boot.HERE << 3 | 4)

    def test_is_no_more_at_work_after_it(self):
        for late_s in (0, 600):
            boot.write((1, boot.PENDING_VERIFY), boot.BLANK)
            self.agent.late_s = late_s
            self.step(False)
            self.assertFalse(self.agent._also is self.trial.step, late_s)

    def test_confirms_an_image_that_nobody_announced(self):
        # Flashed by hand, or the journal is lost: there is nothing to report.
        self.agent.version = "3.3"
        for state in (0, FETCHING, TOLD):
            boot.write((1, boot.PENDING_VERIFY), boot.BLANK)
            self.assertIs(self.step(False, state=state), True, state)
            self.assertTrue(self.is_confirmed(), state)
            self.assertEqual(self.remembered(), (state, 0))

    def test_failure_that_was_not_told_yet_stays_one(self):
        self.journal.start(Command, DONE, boot.OTHER)
        self.journal.code = 430
        self.journal.write(DONE)
        self.agent.tested = False
        self.agent.due = time.ticks_add(time.ticks_ms(), 100000)
        self.assertIs(self.trial.step(self.agent, self.journal), True)
        self.assertEqual((self.journal.state, self.journal.code), (DONE, 430))
        self.assertEqual(self.remembered(), (DONE, 430))

    def test_left_over_switch_to_the_other_slot_is_not_told(self):
        # Its record could not be written when it ended; this image came later.
        self.journal.start(Command, SWITCHING, boot.OTHER)
        self.agent.tested = False
        self.agent.version = "3.3"
        self.agent.due = time.ticks_add(time.ticks_ms(), 100000)
        self.assertIs(self.trial.step(self.agent, self.journal), True)
        self.assertTrue(self.is_confirmed())
        self.assertEqual(self.remembered(), (SWITCHING, 0))

    def test_bad_self_test_restarts_at_once(self):
        for answer in (False, 0, ""):
            self.assertEqual(self.step(False, test=lambda answer=answer: answer), "restart")
            self.failed(461)

    def test_self_test_that_raises_is_bad(self):
        for error in (ValueError, OSError, MemoryError, StopIteration):

            def test(error=error):
                raise error

            self.assertEqual(self.step(False, test=test), "restart", error)
            self.failed(461)

    def test_self_test_that_never_ends(self):
        self.assertEqual(self.step(False, late=True, test=lambda: None), "restart")
        self.failed(461)

    def test_never_connected(self):
        for test in (None, lambda: True):
            self.assertEqual(self.step(None, late=True, test=test), "restart")
            self.failed(462)

    def test_other_version_restarts_at_once(self):
        self.agent.version = "2.0.1"
        asked = []
        self.assertEqual(self.step(False, test=lambda: asked.append(1)), "restart")
        self.failed(463)
        self.assertEqual(asked, [])

    def test_other_version_without_connection_waits(self):
        self.agent.version = "2.0.1"
        self.assertFalse(self.step(None))
        self.waits()

    def test_cause_outlives_the_rollback(self):
        self.step(False, test=lambda: False)
        # The same start again, seen from the image before: its slot is the other one.
        boot.write((1, boot.VALID), (2, boot.ABORTED))
        self.journal = read_journal()
        self.journal.slot = boot.OTHER
        self.begin()
        self.assertEqual(self.remembered(), (DONE, 461))


class ConfirmationTests(StepCase):
    """The flash at the two operations of the confirmation: the erase, the new record."""

    def setUp(self):
        super().setUp()
        try:
            import simulator
        except ImportError:
            raise unittest.SkipTest("no simulator: the flash cannot be made to fail")
        self.simulator = simulator
        boot.write((3, boot.PENDING_VERIFY), (2, boot.VALID))

    def tearDown(self):
        self.simulator.disarm()
        super().tearDown()
        self.simulator.restart()  # once a write of its failed, NVS takes no more before that

    def confirm(self, *faults):
        # The journal comes first, so that the next operations are those of the confirmation.
        self.journal.start(Command, SWITCHING, boot.HERE)
        self.agent.tested = False
        self.agent.due = time.ticks_add(time.ticks_ms(), 100000)
        for fault in faults:
            self.simulator.fault(*fault)
        try:
            return self.trial.step(self.agent, self.journal)
        except Restart:
            return "restart"

    def is_453(self, *faults):
        self.assertEqual(self.confirm(*faults), "restart")
        self.assertEqual(self.remembered(), (SWITCHING, 453))
        self.assertEqual(self.machine.timeouts, [])
        self.assertEqual(self.journal.late, 0)

    def test_there_are_two_of_them(self):
        # What all the numbers below lean on: the third one finds the record written.
        self.assertEqual(self.confirm((2, "error")), True)
        self.assertEqual(boot.states(), [(3, boot.VALID), (2, boot.VALID)])

    def test_erase_that_fails(self):
        self.is_453((0, "error"))
        self.assertEqual(boot.states(), [None, (2, boot.VALID)])

    def test_record_that_is_not_written(self):
        for kind in ("error", "skip"):
            boot.write((3, boot.PENDING_VERIFY), (2, boot.VALID))
            self.is_453((1, kind))
            self.assertEqual(boot.states(), [None, (2, boot.VALID)], kind)

    def test_flash_that_does_nothing_and_says_nothing(self):
        self.is_453((0, "skip"), (1, "skip"))
        self.assertEqual(boot.states(), [None, (2, boot.VALID)])

    def test_record_that_reads_back_wrong(self):
        # Bit 193 of the record: the 2 of VALID; bit 0: the number, its checksum does not fit.
        for bit in (193, 0):
            boot.write((3, boot.PENDING_VERIFY), (2, boot.VALID))
            self.is_453((1, "flip", bit))

    def test_record_that_cannot_be_read_back(self):
        self.is_453((1, "unread"))

    def test_record_of_the_other_slot_is_not_the_one_that_is_confirmed(self):
        # The newer one, VALID, is the other slot's: ours comes before it first.
        for mine in ((3, boot.PENDING_VERIFY), boot.BLANK):
            boot.write(mine, (4, boot.VALID))
            self.assertIs(self.confirm(), True)
            self.assertEqual(boot.states(), [(5, boot.VALID), (4, boot.VALID)])
            self.assertEqual(self.remembered(), (DONE, 0))

    def test_journal_that_cannot_be_written_does_not_keep_it(self):
        def fail(state):
            raise ValueError

        self.journal.start(Command, SWITCHING, boot.HERE)
        self.agent.tested = False
        self.agent.due = time.ticks_add(time.ticks_ms(), 100000)
        self.journal.save = fail
        self.simulator.fault(0, "error")
        with self.assertRaises(Restart):
            self.trial.step(self.agent, self.journal)
