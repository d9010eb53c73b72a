"""
Tests of ota/slot.py: what a start finds: which version runs, what became of the last upgrade.

The device is fresh: ota_0 runs. The steps of a trial: test_trial_steps.py. Source of the expected
values: docs/hardware.md, "Boot loader" and "Starting up"; ESP-IDF esp_app_desc.h; the codes in
docs/protocol.md.
"""

import os
import sys
import time

import bootrecords as boot
import images
from journals import read_journal
from trials import DONE, FETCHING, FROZEN, SWITCHING, TOLD, TrialCase

_BUILD = "a0a1a2a3a4a5a6a7"  # the first 8 bytes of images.BUILD


class VersionTests(TrialCase):
    def version(self):
        self.load()
        self.begin()
        return self.agent.version

    def freeze(self, text):
        try:
            os.mkdir(FROZEN)
        except OSError:
            pass
        with open(FROZEN + "/firmware.py", "w") as file:
            file.write(text)
        sys.path.append(FROZEN)

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

    def test_descriptor_that_is_no_text(self):
        self.running = images.head(version=b"\xff\xfe1")
        self.assertEqual(self.version(), "0.9")
        self.journal.v16 = _BUILD + "1.3"
        self.assertEqual(self.version(), "1.3")

    def test_noted_for_another_build(self):
        for build in ("", "a0a1a2a3a4a5a6a8", "00a1a2a3a4a5a6a7", _BUILD[:15]):
            self.journal.v16 = build + "1.3" if build else ""
            self.assertEqual(self.version(), "0.9", build)

    def test_noted_for_the_other_slot(self):
        self.journal.v17 = _BUILD + "1.3"
        self.assertEqual(self.version(), "0.9")

    def test_noted_before_a_restart(self):
        self.journal.v16 = _BUILD + "1.3"
        self.journal.write(FETCHING)
        self.journal = read_journal()
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
    def test_late_failure_is_not_loaded_when_there_is_none(self):
        self.begin()
        self.assertFalse("ota.late" in sys.modules)


class BeginTests(TrialCase):
    def test_pending_here_begins_a_trial(self):
        for records in (
            ((1, boot.PENDING_VERIFY), boot.BLANK),
            ((3, boot.PENDING_VERIFY), (2, boot.VALID)),
            ((2, boot.VALID), (3, boot.PENDING_VERIFY)),
        ):
            for state in (0, FETCHING, SWITCHING, DONE, TOLD):
                self.assertIs(self.begins(records, state, boot.HERE), True, records)
                self.assertEqual(self.remembered(), (state, 0), records)

    def test_trial_has_a_watchdog_and_a_deadline(self):
        self.begins(((1, boot.PENDING_VERIFY), boot.BLANK), slot=boot.HERE)
        self.assertEqual(self.machine.timeouts, [120000])
        self.assertIs(self.agent.wdt, self.machine)
        left = time.ticks_diff(self.agent.due, time.ticks_ms())
        self.assertTrue(280000 < left <= 300000, left)

    def test_trial_is_at_work_from_then_on(self):
        self.begins(((1, boot.PENDING_VERIFY), boot.BLANK), slot=boot.HERE)
        self.assertIs(self.agent._also, self.trial.step)
        self.assertIsNone(self.agent.tested)

    def test_no_trial_no_watchdog(self):
        for state in (boot.VALID, boot.NEW, boot.UNDEFINED):
            self.assertFalse(self.begins(((1, state), boot.BLANK), 0), state)
        self.assertEqual(self.machine.timeouts, [])
        self.assertIsNone(self.agent.wdt)
        self.assertIsNone(self.agent._also)

    def test_no_records(self):
        self.assertFalse(self.begins((boot.BLANK, boot.BLANK), 0))
        self.assertEqual(self.remembered(), (0, 0))

    def test_rolled_back(self):
        # The boot loader tried the other slot: ABORTED, INVALID; or could not even start it: still
        # PENDING, or torn.
        for state in (boot.ABORTED, boot.INVALID, boot.PENDING_VERIFY, boot.UNDEFINED):
            for code, expected in ((0, 460), (461, 461), (462, 462), (463, 463)):
                self.assertFalse(self.begins(((1, boot.VALID), (2, state)), code=code), state)
                self.assertEqual(self.remembered(), (DONE, expected), state)
        self.assertEqual(self.machine.timeouts, [])

    def test_rolled_back_where_the_records_lie_the_other_way(self):
        self.assertFalse(self.begins(((2, boot.ABORTED), (1, boot.VALID))))
        self.assertEqual(self.remembered(), (DONE, 460))

    def test_rolled_back_from_the_only_record(self):
        self.assertFalse(self.begins(((2, boot.ABORTED), boot.BLANK)))
        self.assertEqual(self.remembered(), (DONE, 460))

    def test_trial_that_failed_counts_without_its_boot_record(self):
        # The power went while the boot loader wrote it.
        for records in (((1, boot.VALID), boot.BLANK), (boot.BLANK, boot.BLANK)):
            for code in (461, 462, 463):
                self.assertFalse(self.begins(records, code=code), records)
                self.assertEqual(self.remembered(), (DONE, code), records)

    def test_soft_reset_before_the_boot_loader_ran(self):
        self.assertEqual(self.begins(((1, boot.VALID), (2, boot.NEW))), "restart")
        self.assertEqual(self.remembered(), (SWITCHING, 0))

    def test_switch_that_did_not_come_is_taken_up_again(self):
        for records in (
            ((1, boot.VALID), boot.BLANK),
            (boot.BLANK, boot.BLANK),
            ((3, boot.VALID), (2, boot.VALID)),  # of an upgrade long ago
            ((1, boot.VALID), boot.entry(2, boot.NEW, crc=0)),  # torn
        ):
            self.assertFalse(self.begins(records), records)
            self.assertEqual(self.remembered(), (SWITCHING, 0), records)

    def test_confirmed_before_the_journal_knew(self):
        # The power went between the two: it runs, it is VALID.
        self.running = images.head(version=b"2.0.0")
        self.assertFalse(self.begins(((3, boot.VALID), (2, boot.VALID)), slot=boot.HERE))
        self.assertEqual(self.remembered(), (DONE, 0))

    def test_record_of_another_version_for_the_running_slot_is_no_success(self):
        # Left over from another upgrade.
        self.assertFalse(self.begins(((3, boot.VALID), (2, boot.VALID)), slot=boot.HERE))
        self.assertEqual(self.remembered(), (DONE, 463))

    def test_records_mean_nothing_when_no_switch_was_under_way(self):
        for state in (0, 1, FETCHING, DONE, TOLD):
            for record in (
                (2, boot.NEW),
                (2, boot.ABORTED),
                (2, boot.PENDING_VERIFY),
                (2, boot.VALID),
            ):
                self.assertFalse(self.begins(((1, boot.VALID), record), state), (state, record))
                self.assertEqual(self.remembered(), (state, 0), (state, record))

    def test_running_slot_means_nothing_when_no_switch_was_under_way(self):
        for state in (0, 1, FETCHING, DONE, TOLD):
            self.assertFalse(self.begins(((1, boot.VALID), boot.BLANK), state, boot.HERE, 431))
            self.assertEqual(self.remembered(), (state, 431), state)

    def test_record_of_a_slot_that_was_not_written(self):
        self.assertFalse(self.begins(((1, boot.VALID), (2, boot.ABORTED)), slot=0x12))
        self.assertEqual(self.remembered(), (SWITCHING, 0))

    def test_nothing_is_remembered_without_a_journal(self):
        boot.write((1, boot.VALID), (2, boot.ABORTED))
        self.assertFalse(self.begin())
        self.assertEqual(self.remembered(), (0, 0))
