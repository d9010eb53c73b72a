"""
Tests of ota/trial.py: what a start finds, and how a new image proves itself or goes.

The device is fresh: ota_0 runs. A restart of the device is an exception here. Source of the
expected values: docs/hardware.md, "Boot loader" and "Starting up"; ESP-IDF esp_app_desc.h; the
codes in docs/protocol.md.
"""

import os
import sys
import time
import unittest

import bootrecords as boot
import images
from esp32 import NVS

from ota.journal import Journal
from ota.slot import head as slot_head

_FETCHING = 2
_SWITCHING = 3
_DONE = 4
_TOLD = 5

_BUILD = "a0a1a2a3a4a5a6a7"  # the first 8 bytes of images.BUILD
_FROZEN = "trial.frozen"  # a folder that stands for the frozen modules


class Restart(Exception):
    """machine.reset() was called: on a device it never returns."""


class Machine:
    """The module `machine`: notes each watchdog's time-out."""

    def __init__(self):
        self.timeouts = []

    def WDT(self, timeout):
        self.timeouts.append(timeout)
        return self

    def reset(self):
        raise Restart


class Command:
    msg_id = "17"
    version = "2.0.0"
    sign = "d41d8cd98f00b204e9800998ecf8427e"


class Agent:
    """What the trial needs of ota.OTA."""

    trial_s = 300
    self_test = wdt = tested = None
    version = due = None
    reports = 0

    def connected(self):
        self.reports += 1


class TrialCase(unittest.TestCase):
    def setUp(self):
        self._records = boot.read()
        self._path = sys.path[:]
        self.forget()
        self.machine = Machine()
        self.agent = Agent()
        self.load()
        self.running = images.head()  # what the running slot begins with, see load()
        self.journal = Journal()

    def tearDown(self):
        sys.path[:] = self._path
        sys.modules.pop("firmware", None)
        for name in (_FROZEN + "/firmware.py", "firmware.py"):
            try:
                os.remove(name)
            except OSError:
                pass
        try:
            os.rmdir(_FROZEN)
        except OSError:
            pass
        boot.write(*self._records)
        self.forget()

    def forget(self):
        for key in "ab":
            try:
                NVS("ota").erase_key(key)
            except OSError:
                pass

    def load(self):
        # begin() drops its own module, so each start has another one.
        import ota.trial

        trial = ota.trial
        trial.machine = self.machine
        trial.head = lambda partition: self.running
        self.trial = trial

    def begin(self):
        return self.trial.begin(self.agent, self.journal, "0.9")

    def begins(self, records, state=_SWITCHING, slot=boot.OTHER, code=0):
        # A start with these boot records and this journal: what begin() returned, "restart" when
        # it restarted.
        boot.write(*records)
        self.load()
        self.journal = Journal()
        self.journal.take(Command, state, slot)
        self.journal.code = code
        self.journal.save(state)
        try:
            return self.begin()
        except Restart:
            return "restart"

    def remembered(self):
        # State and code as the next start finds them.
        found = Journal().load()
        return found.state, found.code


class VersionTests(TrialCase):
    def version(self):
        self.load()
        self.begin()
        return self.agent.version

    def freeze(self, text):
        try:
            os.mkdir(_FROZEN)
        except OSError:
            pass
        with open(_FROZEN + "/firmware.py", "w") as file:
            file.write(text)
        sys.path.append(_FROZEN)

    def test_sources_in_their_order(self):
        self.assertEqual(self.version(), "0.9")
        self.journal.v16 = _BUILD + "1.3"
        self.assertEqual(self.version(), "1.3")
        self.running = images.head(version=b"1.2")
        self.assertEqual(self.version(), "1.2")
        self.freeze('VERSION = "1.1"')
        self.assertEqual(self.version(), "1.1")

    def test_longest_version_in_the_descriptor(self):
        for text in ("1", "v" * 31, "v" * 32):
            self.running = images.head(version=text.encode())
            self.assertEqual(self.version(), text)

    def test_noted_for_another_build(self):
        for build in ("", "a0a1a2a3a4a5a6a8", "00a1a2a3a4a5a6a7", _BUILD[:15]):
            self.journal.v16 = build + "1.3" if build else ""
            self.assertEqual(self.version(), "0.9", build)

    def test_noted_for_the_other_slot(self):
        self.journal.v17 = _BUILD + "1.3"
        self.assertEqual(self.version(), "0.9")

    def test_noted_before_a_restart(self):
        self.journal.v16 = _BUILD + "1.3"
        self.journal.save(_FETCHING)
        self.journal = Journal().load()
        self.assertEqual(self.version(), "1.3")

    def test_file_firmware_is_not_looked_at(self):
        # It would stay the same whatever image runs.
        with open("firmware.py", "w") as file:
            file.write('VERSION = "6.6.6"')
        sys.path.insert(0, "")
        self.assertEqual(self.version(), "0.9")

    def test_frozen_firmware_without_version(self):
        self.freeze("OTHER = 1")
        self.assertEqual(self.version(), "0.9")

    def test_path_is_as_before(self):
        self.freeze('VERSION = "1.1"')
        path = sys.path[:]
        self.version()
        self.assertEqual(sys.path, path)


class HeapTests(TrialCase):
    def test_module_goes_from_memory(self):
        import ota

        self.begin()
        self.assertFalse("ota.trial" in sys.modules)
        self.assertFalse(hasattr(ota, "trial"))


class BeginTests(TrialCase):
    def test_pending_here_begins_a_trial(self):
        for records in (
            ((1, boot.PENDING_VERIFY), boot.BLANK),
            ((3, boot.PENDING_VERIFY), (2, boot.VALID)),
            ((2, boot.VALID), (3, boot.PENDING_VERIFY)),
        ):
            for state in (0, _FETCHING, _SWITCHING, _DONE, _TOLD):
                self.assertIs(self.begins(records, state, boot.HERE), True, records)
                self.assertEqual(self.remembered(), (state, 0), records)

    def test_trial_has_a_watchdog_and_a_deadline(self):
        self.begins(((1, boot.PENDING_VERIFY), boot.BLANK), slot=boot.HERE)
        self.assertEqual(self.machine.timeouts, [120000])
        self.assertIs(self.agent.wdt, self.machine)
        left = time.ticks_diff(self.agent.due, time.ticks_ms())
        self.assertTrue(280000 < left <= 300000, left)

    def test_no_trial_no_watchdog(self):
        for state in (boot.VALID, boot.NEW, boot.UNDEFINED):
            self.assertFalse(self.begins(((1, state), boot.BLANK), 0), state)
        self.assertEqual(self.machine.timeouts, [])
        self.assertIsNone(self.agent.wdt)

    def test_no_records(self):
        self.assertFalse(self.begins((boot.BLANK, boot.BLANK), 0))
        self.assertEqual(self.remembered(), (0, 0))

    def test_rolled_back(self):
        # The boot loader tried the other slot: ABORTED, INVALID; or could not even start it: still
        # PENDING, or torn.
        for state in (boot.ABORTED, boot.INVALID, boot.PENDING_VERIFY, boot.UNDEFINED):
            for code, expected in ((0, 460), (461, 461), (462, 462), (463, 463)):
                self.assertFalse(self.begins(((1, boot.VALID), (2, state)), code=code), state)
                self.assertEqual(self.remembered(), (_DONE, expected), state)
        self.assertEqual(self.machine.timeouts, [])

    def test_rolled_back_where_the_records_lie_the_other_way(self):
        self.assertFalse(self.begins(((2, boot.ABORTED), (1, boot.VALID))))
        self.assertEqual(self.remembered(), (_DONE, 460))

    def test_rolled_back_from_the_only_record(self):
        self.assertFalse(self.begins(((2, boot.ABORTED), boot.BLANK)))
        self.assertEqual(self.remembered(), (_DONE, 460))

    def test_soft_reset_before_the_boot_loader_ran(self):
        self.assertEqual(self.begins(((1, boot.VALID), (2, boot.NEW))), "restart")
        self.assertEqual(self.remembered(), (_SWITCHING, 0))

    def test_switch_that_did_not_come_is_taken_up_again(self):
        for records in (
            ((1, boot.VALID), boot.BLANK),
            (boot.BLANK, boot.BLANK),
            ((3, boot.VALID), (2, boot.VALID)),  # of an upgrade long ago
            ((1, boot.VALID), boot.entry(2, boot.NEW, crc=0)),  # torn
        ):
            self.assertFalse(self.begins(records), records)
            self.assertEqual(self.remembered(), (_SWITCHING, 0), records)

    def test_confirmed_before_the_journal_knew(self):
        # The power went between the two: it runs, it is VALID.
        self.assertFalse(self.begins(((3, boot.VALID), (2, boot.VALID)), slot=boot.HERE))
        self.assertEqual(self.remembered(), (_DONE, 0))

    def test_records_mean_nothing_when_no_switch_was_under_way(self):
        for state in (0, 1, _FETCHING, _DONE, _TOLD):
            for record in (
                (2, boot.NEW),
                (2, boot.ABORTED),
                (2, boot.PENDING_VERIFY),
                (2, boot.VALID),
            ):
                self.assertFalse(self.begins(((1, boot.VALID), record), state), (state, record))
                self.assertEqual(self.remembered(), (state, 0), (state, record))

    def test_running_slot_means_nothing_when_no_switch_was_under_way(self):
        for state in (0, 1, _FETCHING, _DONE, _TOLD):
            self.assertFalse(self.begins(((1, boot.VALID), boot.BLANK), state, boot.HERE, 431))
            self.assertEqual(self.remembered(), (state, 431), state)

    def test_record_of_a_slot_that_was_not_written(self):
        self.assertFalse(self.begins(((1, boot.VALID), (2, boot.ABORTED)), slot=0x12))
        self.assertEqual(self.remembered(), (_SWITCHING, 0))

    def test_nothing_is_remembered_without_a_journal(self):
        boot.write((1, boot.VALID), (2, boot.ABORTED))
        self.assertFalse(self.begin())
        self.assertEqual(self.remembered(), (0, 0))


class StepTests(TrialCase):
    def setUp(self):
        super().setUp()
        boot.write((1, boot.PENDING_VERIFY), boot.BLANK)
        self.agent.version = Command.version

    def step(self, tested, told=False, late=False, test=None, state=_SWITCHING):
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
        self.assertEqual(self.remembered(), (_SWITCHING, 0))
        self.assertEqual(self.machine.timeouts, [])

    def failed(self, code):
        self.assertFalse(self.is_confirmed())
        self.assertEqual(self.remembered(), (_SWITCHING, code))
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
        self.assertEqual(self.remembered(), (_DONE, 0))

    def test_confirms_also_at_the_last_moment(self):
        self.assertIs(self.step(True, told=True, late=True), True)
        self.assertTrue(self.is_confirmed())
        self.assertEqual(self.remembered(), (_DONE, 0))

    def test_watchdog_is_set_long_after_the_trial(self):
        self.step(True, told=True)
        self.assertEqual(self.machine.timeouts, [0x7FFFFFFF])  # the longest that there is
        self.assertIs(self.agent.wdt, self.machine)

    def test_confirms_an_image_that_nobody_announced(self):
        # Flashed by hand, or the journal is lost: there is nothing to report.
        self.agent.version = "3.3"
        for state in (0, _FETCHING, _TOLD):
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
        self.assertEqual(self.remembered(), (_DONE, 461))


class BootLoaderTests(TrialCase):
    """The same over the boot loader itself, from the switch on."""

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
        self.journal.take(Command, _SWITCHING, boot.OTHER)
        self.other.set_boot()

    def tearDown(self):
        super().tearDown()
        self.restart()

    def write(self, image):
        block = bytearray(b"\xff" * 4096)
        block[: len(image)] = image
        self.other.writeblocks(0, block)

    def start(self, label):
        # The device starts from that slot: what begin() returns.
        self.assertEqual(self.restart(), label)
        self.load()
        self.trial.head = slot_head
        self.agent = Agent()
        self.journal = Journal().load()
        return self.begin()

    def test_new_image_confirms_itself_and_stays(self):
        self.assertIs(self.start("ota_1"), True)
        self.assertEqual(self.agent.version, "2.0.0")
        self.agent.tested = True
        self.assertIs(self.trial.step(self.agent, self.journal, True), True)
        self.assertFalse(self.start("ota_1"))
        self.assertEqual(self.agent.version, "2.0.0")
        self.assertEqual(self.remembered(), (_DONE, 0))

    def test_image_that_does_not_confirm_itself_is_rolled_back(self):
        self.assertIs(self.start("ota_1"), True)
        self.assertFalse(self.start("ota_0"))
        self.assertEqual(self.remembered(), (_DONE, 460))

    def test_image_that_the_boot_loader_refuses(self):
        self.write(b"")  # it went bad after the switch
        self.assertFalse(self.start("ota_0"))
        self.assertEqual(self.remembered(), (_DONE, 460))
