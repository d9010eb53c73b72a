"""
Tests of ota/trial.py: how a new image proves itself, or goes.

The device is fresh: ota_0 runs. Source of the expected values: docs/hardware.md, "Starting up";
the codes in docs/protocol.md.
"""

import time

import bootrecords as boot
from trials import DONE, FETCHING, SWITCHING, TOLD, Command, Restart, TrialCase

from ota.journal import Journal


class StepTests(TrialCase):
    def setUp(self):
        super().setUp()
        boot.write((1, boot.PENDING_VERIFY), boot.BLANK)
        self.agent.version = Command.version

    def step(self, tested, told=False, late=False, test=None, state=SWITCHING):
        # One step: what it returned, "restart" when it restarted. test: what the self-test does.
        self.journal.take(Command, state, boot.HERE)
        self.agent.tested = tested
        self.agent.due = time.ticks_add(time.ticks_ms(), 0 if late else 100000)
        self.agent.self_test = test
        try:
            return self.trial.step(self.agent, self.journal, told)
        except Restart:
            return "restart"

    def is_confirmed(self):
        return boot.states()[0] == (1, boot.VALID)

    def waits(self):
        self.assertFalse(self.is_confirmed())
        self.assertEqual(self.remembered(), (SWITCHING, 0))
        self.assertEqual(self.machine.timeouts, [])

    def failed(self, code):
        self.assertFalse(self.is_confirmed())
        self.assertEqual(self.remembered(), (SWITCHING, code))
        self.assertEqual(self.machine.timeouts, [])

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

    def test_reports_after_a_good_self_test(self):
        for test in (None, lambda: True):
            self.agent.reports = 0
            self.assertFalse(self.step(False, test=test))
            self.waits()
            self.assertIs(self.agent.tested, True)
            self.assertEqual(self.agent.reports, 1)

    def test_nothing_is_reported_before_the_self_test_passed(self):
        for test in (lambda: None, lambda: False, lambda: 1 // 0):
            self.step(False, test=test)
            self.assertEqual(self.agent.reports, 0)
            self.assertIs(self.agent.tested, False)

    def test_self_test_is_asked_again(self):
        answers = [None, None, True]
        for tested in (False, False, True):
            self.assertFalse(self.step(False, test=lambda: answers.pop(0)))
            self.assertIs(self.agent.tested, tested)
        self.waits()

    def test_self_test_is_not_asked_once_more(self):
        asked = []
        self.step(True, test=lambda: asked.append(1))
        self.step(True, told=True, test=lambda: asked.append(1))
        self.assertEqual(asked, [])

    def test_waits_for_the_report(self):
        self.assertFalse(self.step(True))
        self.waits()

    def test_confirms_when_the_platform_has_the_version(self):
        self.assertIs(self.step(True, told=True), True)
        self.assertTrue(self.is_confirmed())
        self.assertEqual(self.remembered(), (DONE, 0))

    def test_confirms_also_at_the_last_moment(self):
        self.assertIs(self.step(True, told=True, late=True), True)
        self.assertTrue(self.is_confirmed())
        self.assertEqual(self.remembered(), (DONE, 0))

    def test_watchdog_is_set_long_after_the_trial(self):
        self.step(True, told=True)
        self.assertEqual(self.machine.timeouts, [0x7FFFFFFF])  # the longest that there is
        self.assertIs(self.agent.wdt, self.machine)

    def test_confirms_an_image_that_nobody_announced(self):
        # Flashed by hand, or the journal is lost: there is nothing to report.
        self.agent.version = "3.3"
        for state in (0, FETCHING, TOLD):
            boot.write((1, boot.PENDING_VERIFY), boot.BLANK)
            self.step(False, state=state)
            self.assertIs(self.agent.tested, True, state)
            self.assertIs(self.step(True, told=True, state=state), True, state)
            self.assertTrue(self.is_confirmed(), state)
            self.assertEqual(self.remembered(), (state, 0))

    def test_bad_self_test_restarts_at_once(self):
        self.assertEqual(self.step(False, test=lambda: False), "restart")
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

    def test_self_test_that_passes_too_late_is_not_called_bad(self):
        self.assertFalse(self.step(False, late=True, test=lambda: True))
        self.waits()

    def test_never_connected(self):
        for test in (None, lambda: True):
            self.assertEqual(self.step(None, late=True, test=test), "restart")
            self.failed(462)

    def test_report_that_never_arrives(self):
        self.assertEqual(self.step(True, late=True), "restart")
        self.failed(462)

    def test_other_version_restarts_at_once(self):
        self.agent.version = "2.0.1"
        asked = []
        self.assertEqual(self.step(False, test=lambda: asked.append(1)), "restart")
        self.failed(463)
        self.assertEqual((asked, self.agent.reports), ([], 0))

    def test_other_version_without_connection_waits(self):
        self.agent.version = "2.0.1"
        self.assertFalse(self.step(None))
        self.waits()

    def test_cause_outlives_the_rollback(self):
        self.step(False, test=lambda: False)
        # The same start again, seen from the image before: its slot is the other one.
        boot.write((1, boot.VALID), (2, boot.ABORTED))
        self.journal = Journal().load()
        self.journal.slot = boot.OTHER
        self.begin()
        self.assertEqual(self.remembered(), (DONE, 461))
