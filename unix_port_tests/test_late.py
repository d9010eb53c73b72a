"""
Tests of ota/late.py: an image that was confirmed, and crashes in its first starts.

The device is fresh: ota_0 runs, ota_1 holds a whole image. Over the boot loader, with the agent:
test_late_agent.py. Source of the expected values: docs/hardware.md, "Boot records"; the causes of
a reset are those of MicroPython's machine module on the ESP32.
"""

import sys
import time
import unittest
from binascii import hexlify

import bootrecords as boot
import images
from esp32 import Partition
from journals import read_journal
from trials import DONE, FETCHING, SWITCHING, TOLD, Agent, Command, Restart, TrialCase

import ota
from ota.agent import Journal
from ota.slot import records as boot_records

POWER_ON = 1
HARD = 2
WDT = 3
DEEP_SLEEP = 4
SOFT = 5

# ota_0 was confirmed last, ota_1 is what ran before.
AFTER_UPGRADE = (3, boot.VALID), (2, boot.VALID)


def boots():
    # The slot that the next start takes.
    return Partition(Partition.BOOT).info()[1]


class LateCase(TrialCase):
    def setUp(self):
        super().setUp()
        self.write(images.application())

    def build(self):
        # Of the image that runs, as the journal has it.
        return hexlify(self.running[176:184]).decode()

    def write(self, image):
        # Into ota_1.
        slot = boot.slot(boot.OTHER)
        slot.ioctl(6, 0)
        slot.writeblocks(0, image, 0)

    def starts(
        self,
        lives,
        cause,
        slot=boot.HERE,
        records=AFTER_UPGRADE,
        state=TOLD,
        late_s=600,
        keep=False,
    ):
        # A start with so many lives of the image in that slot: True = a trial, False = none,
        # "restart". keep: the boot records and the journal are those of the start before.
        if not keep:
            boot.write(*records)
            self.forget()
            self.journal = Journal()
            self.journal.late = slot << 3 | lives
            self.journal.back = self.build()
            self.journal.start(Command, state, slot)
        self.journal = read_journal()
        if hasattr(ota, "counted"):  # a start begins without it
            del ota.counted
        self.unload()
        self.load()
        self.machine.cause = cause
        self.agent = Agent()
        self.agent.late_s = late_s
        try:
            return self.begin()
        except Restart:
            return "restart"

    def lives(self):
        # As the next start finds them: (slot, how many).
        late = read_journal().late
        return late >> 3, late & 7

    def assertForgotten(self, why=None):
        # Nothing is watched any more, in NVS neither, and the code is gone from the heap.
        self.assertEqual(read_journal().late, 0, why)
        self.assertEqual(self.journal.late, 0, why)
        self.assertIsNone(self.agent._also, why)
        self.assertFalse("ota.late" in sys.modules, why)
        self.assertFalse(hasattr(ota, "late"), why)


class ArmTests(LateCase):
    def arm(self, slot):
        from ota.late import arm

        self.agent._also = self.trial.step
        arm(self.agent, self.journal, slot)

    def test_three_crashes_of_the_slot_that_was_confirmed(self):
        for slot in (boot.HERE, boot.OTHER, 0x1F):
            self.arm(slot)
            self.assertEqual((self.journal.late >> 3, self.journal.late & 7), (slot, 4))

    def test_watches_for_late_s(self):
        self.agent.late_s = 77
        self.arm(boot.HERE)
        left = time.ticks_diff(self.agent.calm, time.ticks_ms())
        self.assertTrue(60000 < left <= 77000, left)
        self.assertFalse(self.agent._also in (None, self.trial.step))

    def test_caller_writes_the_journal(self):
        turn = self.journal.turn
        self.arm(boot.HERE)
        self.assertEqual(self.journal.turn, turn)


class CountTests(LateCase):
    def test_crash_takes_a_life(self):
        for cause in (HARD, WDT):
            for lives in (4, 3):
                self.assertFalse(self.starts(lives, cause), cause)
                self.assertEqual(self.lives(), (boot.HERE, lives - 1), cause)

    def test_what_is_no_crash_takes_none(self):
        for cause in (POWER_ON, DEEP_SLEEP, SOFT, 0):
            for lives in (4, 3, 2):
                self.assertFalse(self.starts(lives, cause), cause)
                self.assertEqual(self.lives(), (boot.HERE, lives), cause)
                self.assertEqual(boots(), boot.HERE)

    def test_start_without_a_crash_writes_nothing(self):
        self.starts(3, POWER_ON)
        turn = read_journal().turn
        self.assertFalse(self.starts(3, POWER_ON, keep=True))
        self.assertEqual(read_journal().turn, turn)

    def test_each_start_watches_anew(self):
        for cause in (POWER_ON, HARD):
            self.starts(4, cause)
            left = time.ticks_diff(self.agent.calm, time.ticks_ms())
            self.assertTrue(580000 < left <= 600000, left)
            self.assertIsNotNone(self.agent._also)
            self.assertTrue(hasattr(ota, "late"))

    def test_record_of_the_upgrade_stays_as_it_is(self):
        for state in (0, 1, FETCHING, DONE, TOLD):
            self.starts(4, HARD, state=state)
            found = read_journal()
            self.assertEqual((found.state, found.code, found.msg_id), (state, 0, "17"))

    def test_third_crash_goes_back(self):
        for cause in (HARD, WDT):
            self.assertFalse(self.starts(4, cause))
            self.assertFalse(self.starts(0, cause, keep=True))
            self.assertEqual(boots(), boot.HERE)
            self.assertEqual(self.starts(0, cause, keep=True), "restart")
            self.assertEqual(boots(), boot.OTHER)
            self.assertEqual(self.lives(), (boot.HERE, 1))

    def test_crashes_between_power_cuts_add_up(self):
        self.assertFalse(self.starts(4, HARD))
        for cause in (POWER_ON, WDT, SOFT, DEEP_SLEEP):
            self.assertFalse(self.starts(0, cause, keep=True), cause)
        self.assertEqual(self.starts(0, HARD, keep=True), "restart")

    def test_power_cut_before_the_switch_does_not_save_it(self):
        # The third crash was counted, set_boot did not come.
        for cause in (POWER_ON, HARD, SOFT):
            self.assertEqual(self.starts(1, cause), "restart", cause)
            self.assertEqual(boots(), boot.OTHER)

    def test_running_slots_record_in_either_sector(self):
        for records in (
            (boot.BLANK, (3, boot.VALID)),
            ((3, boot.VALID), boot.BLANK),
            ((2, boot.VALID), (3, boot.VALID)),
            ((3, boot.UNDEFINED), (2, boot.VALID)),  # its state was torn; it runs
        ):
            self.assertEqual(self.starts(2, HARD, records=records), "restart")
            self.assertEqual(boots(), boot.OTHER)

    def test_init_that_is_called_again_counts_a_crash_once(self):
        self.starts(4, HARD)
        for _ in range(3):
            self.unload()
            self.load()
            self.journal = read_journal()
            self.assertFalse(self.begin())
        self.assertEqual(self.lives(), (boot.HERE, 3))

    def test_power_cut_on_the_way_back_is_not_its_chance(self):
        # The old image was started, and the power went before it could say a word.
        records = (3, boot.VALID), (4, boot.ABORTED)
        self.assertEqual(self.starts(1, POWER_ON, records=records), "restart")
        self.assertEqual(boots(), boot.OTHER)


class GiveUpTests(LateCase):
    def test_other_slot_had_its_chance(self):
        # PENDING_VERIFY: the boot loader refused its image and took ours.
        for state in (boot.ABORTED, boot.INVALID, boot.PENDING_VERIFY):
            mine, other = (3, boot.VALID), (4, state)
            for records in ((mine, other), (other, mine)):
                self.assertFalse(self.starts(2, HARD, records=records), records)
                self.assertForgotten(records)
                self.assertEqual(boot.states(), list(records))

    def test_other_slot_is_not_whole(self):
        for image in (b"", b"\xe9" * 100, images.application()[:-1]):
            self.write(image)
            self.assertFalse(self.starts(2, WDT), len(image))
            self.assertForgotten(len(image))
            self.assertEqual(boots(), boot.HERE)

    def test_is_given_up_once(self):
        self.write(b"")
        self.starts(2, HARD)
        turn = read_journal().turn
        self.write(images.application())
        for _ in range(4):
            self.assertFalse(self.starts(0, HARD, keep=True))
        self.assertEqual(read_journal().turn, turn)
        self.assertEqual(boots(), boot.HERE)

    def test_no_outcome_comes_of_it(self):
        self.write(b"")
        self.starts(2, HARD)
        self.assertEqual(self.remembered(), (TOLD, 0))

    def test_late_s_0_ends_what_was_armed(self):
        for lives in (4, 2, 1):
            self.assertFalse(self.starts(lives, HARD, late_s=0))
            self.assertForgotten(lives)
            self.assertEqual(boots(), boot.HERE)

    def test_other_slot_was_flashed_by_cable(self):
        # Another image runs than the one that is armed: its crashes are not counted.
        for lives in (4, 3, 2):
            self.assertFalse(self.starts(lives, HARD, slot=boot.OTHER))
            self.assertForgotten(lives)
            self.assertEqual(self.remembered(), (TOLD, 0))
            self.assertEqual(boots(), boot.HERE)


class BackTests(LateCase):
    # ota_1 crashed; ota_0 is what ran before, and its record what set_boot left.
    RECORDS = (3, boot.PENDING_VERIFY), (2, boot.VALID)

    def back(self, **more):
        return self.starts(1, HARD, boot.OTHER, self.RECORDS, **more)

    def test_is_confirmed_without_a_trial(self):
        for late_s in (600, 0):
            self.assertFalse(self.back(late_s=late_s))
            self.assertEqual(boot.states(), [(3, boot.VALID), (2, boot.VALID)])
            self.assertForgotten(late_s)

    def test_watchdog_of_the_guard_does_not_bite_later(self):
        # boot.py started one of 120 s, as the record was pending.
        self.back()
        self.assertEqual(self.machine.timeouts, [0x7FFFFFFF])
        self.assertIs(self.agent.wdt, self.machine)

    def test_flash_that_does_not_confirm_it_gives_it_a_trial(self):
        try:
            import simulator
        except ImportError:
            raise unittest.SkipTest("no simulator: the flash cannot be made to fail")
        self.journal = Journal()
        self.journal.late = boot.OTHER << 3 | 1
        self.journal.start(Command, TOLD, boot.OTHER)
        boot.write(*self.RECORDS)
        self.journal.back = self.build()
        self.journal.write(TOLD)
        for k in (0, 1):  # it is tried twice
            simulator.fault(k, "error")
        try:
            self.assertIs(self.starts(0, HARD, keep=True), True)
        finally:
            simulator.disarm()
        self.assertEqual(self.remembered(), (DONE, 464))
        self.agent.tested = False
        self.assertIs(self.trial.step(self.agent, self.journal), True)
        self.assertEqual(self.remembered(), (DONE, 464))

    def test_flash_that_fails_once_does_not_keep_it_from_being_confirmed(self):
        try:
            import simulator
        except ImportError:
            raise unittest.SkipTest("no simulator: the flash cannot be made to fail")
        self.back()
        for kind, k in (("error", 0), ("error", 1), ("skip", 1)):
            self.journal.late = boot.OTHER << 3 | 1
            self.journal.write(TOLD)
            boot.write(*self.RECORDS)
            simulator.fault(k, kind)
            try:
                self.assertFalse(self.starts(0, HARD, keep=True), kind)
            finally:
                simulator.disarm()
            found = [record[:2] for record in boot_records()]
            self.assertTrue((boot.VALID, boot.HERE) in found, kind)

    def test_image_that_is_not_the_one_from_before_has_a_trial(self):
        # A journal that is older than the image.
        self.back()
        for back in ("0" * 16, ""):
            self.journal.late = boot.OTHER << 3 | 1
            self.journal.back = back
            self.journal.code = 0
            self.journal.write(TOLD)
            boot.write(*self.RECORDS)
            self.assertIs(self.starts(0, HARD, keep=True), True)
            self.assertEqual(self.remembered(), (TOLD, 0))
            self.assertEqual(self.journal.late, 0)

    def test_is_to_be_told_as_464(self):
        for state in (0, 1, FETCHING, SWITCHING, DONE, TOLD):
            self.back(state=state)
            found = read_journal()
            self.assertEqual((found.state, found.code, found.msg_id), (DONE, 464, "17"), state)

    def test_crashes_from_then_on_are_not_counted(self):
        self.back()
        for _ in range(4):
            self.assertFalse(self.starts(0, HARD, keep=True))
        self.assertEqual(boots(), boot.HERE)
        self.assertEqual(self.remembered(), (DONE, 464))

    def test_power_cut_before_the_report_was_noted(self):
        # It is VALID already; the start after that notes it.
        self.assertFalse(self.starts(1, POWER_ON, boot.OTHER))
        self.assertEqual(self.remembered(), (DONE, 464))
        self.assertForgotten()


class CalmTests(LateCase):
    def watch(self, state=TOLD):
        self.starts(3, POWER_ON, state=state)

    def look(self):
        # As _work() does it: nothing is confirmed, so the rest of it goes on.
        self.assertFalse(self.agent._also(self.agent, self.journal))

    def test_goes_on_while_late_s_lasts(self):
        self.watch()
        turn = read_journal().turn
        for _ in range(3):
            self.look()
        self.assertIsNotNone(self.agent._also)
        self.assertEqual(self.lives(), (boot.HERE, 3))
        self.assertEqual(read_journal().turn, turn)

    def test_is_over_after_it(self):
        for state in (0, 1, FETCHING, DONE, TOLD):
            self.watch(state)
            self.agent.calm = time.ticks_ms()
            self.look()
            self.assertForgotten(state)
            self.assertEqual(self.remembered(), (state, 0))

    def test_is_over_when_the_next_command_came(self):
        # Its record takes the place of the one that would be told.
        for phase in (2, 3, 4, 5):
            self.watch()
            self.look()
            self.assertEqual(self.lives(), (boot.HERE, 3), phase)
            self.agent._phase = phase
            self.look()
            self.assertForgotten(phase)

    def test_crash_after_it_is_an_ordinary_one(self):
        self.watch()
        self.agent.calm = time.ticks_ms()
        self.look()
        for _ in range(4):
            self.assertFalse(self.starts(0, HARD, keep=True))
        self.assertEqual(boots(), boot.HERE)
        self.assertForgotten()
