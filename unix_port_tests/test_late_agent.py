"""
Tests of ota/late.py with the agent and over the boot loader: from the confirmation to the report.

Source of the expected values: docs/hardware.md, "Boot loader"; the codes in docs/protocol.md.
"""

import sys
import unittest

import bootrecords as boot
import images
from agents import AgentCase
from fakes import Reset, data, forget
from journals import read_journal

from ota.agent import Journal
from ota.protocol import command

POWER_ON = 1
HARD = 2
WDT = 3


def armed(lives=4):
    # The image in ota_0 was confirmed.
    forget()
    journal = Journal()
    journal.late = boot.HERE << 3 | lives
    journal.write(0)


def late():
    return read_journal().late


class AgentTests(AgentCase):
    def test_upgrade_disarms_before_its_first_erase(self):
        import ota.download

        module = ota.download
        slot, seen = module.Slot, []

        def noting(*args):  # erases boot records as it begins
            seen.append(late())
            return slot(*args)

        armed()
        self.ready()
        module.Slot = noting
        try:
            self.net.script(b"HTTP/1.0 200 OK\r\n\r\n")
            self.command()
            self.poll(4)
        finally:
            module.Slot = slot
        self.assertTrue(self.agent.is_fetching())
        self.assertEqual((seen, late()), ([0], 0))
        self.assertFalse("ota.late" in sys.modules)

    def test_command_that_downloads_nothing_writes_over_nothing(self):
        # The other slot is whole all the same.
        armed()
        agent = self.ready()
        self.command(version=agent.version, policy="silent")
        self.poll(5)
        self.assertEqual(self.progress(), [("succeeded", 100, None)])
        self.assertFalse(agent.is_fetching())

    def test_over_after_late_s_of_polls(self):
        for late_s in (600, 5):
            armed()
            self.ready(late_s=late_s)
            self.clock.advance(late_s * 1000 - 1)
            self.poll()
            self.assertEqual(late(), boot.HERE << 3 | 4)
            self.clock.advance(1)
            self.poll(2)
            self.assertEqual(late(), 0)
            self.assertFalse("ota.late" in sys.modules)
            self.agent.destroy()

    def test_connection_and_trial_end_do_not_matter_to_it(self):
        armed(3)
        self.ready()
        self.client.reconnect()
        self.poll(5)
        self.assertEqual(late(), boot.HERE << 3 | 3)
        self.assertIs(self.agent.tested, True)

    def test_version_is_told_only_of_what_is_confirmed(self):
        for end in (self.poll, self.client.reconnect):
            boot.write((1, boot.PENDING_VERIFY), boot.BLANK)
            passed = []
            self.start(self_test=lambda passed=passed: passed and passed.pop())
            publish, seen = self.client.publish, []

            def noting(topic, *rest, publish=publish, seen=seen):
                seen.append((topic.split("/")[-1], boot.states()[0][1]))
                return publish(topic, *rest)

            self.client.publish = noting
            self.agent.self_test = lambda: None
            self.poll(3)
            end()
            self.assertEqual(seen, [])
            self.agent.self_test = lambda: True
            self.poll(4)
            self.assertEqual(seen, [("version", boot.VALID), ("get", boot.VALID)])
            self.agent.destroy()


class BootLoaderTests(AgentCase):
    """ota_1 holds version 2.0, which the command m1 brought, and has its first start."""

    def setUp(self):
        super().setUp()
        try:
            import simulator
        except ImportError:
            raise unittest.SkipTest("no simulator: the boot loader cannot be run")
        self._restart = simulator.restart
        boot.write((1, boot.VALID), boot.BLANK)
        block = bytearray(b"\xff" * 4096)
        image = images.application(version=b"2.0")
        block[: len(image)] = image
        other = boot.slot(boot.OTHER)
        other.writeblocks(0, block)
        Journal().start(command("m1", data(), False), 3, boot.OTHER)
        other.set_boot()

    def tearDown(self):
        super().tearDown()
        self._restart()

    def boots(self, label, cause, polls=8):
        # A reset with that cause: the slot that runs, and its agent with all that it says.
        self.agent = None
        self.assertEqual(self._restart(), label)
        self.machine.cause = cause
        self.start(version="1.0")
        self.poll(polls)

    def confirmed(self):
        self.boots("ota_1", HARD)
        self.assertEqual(self.bodies("version"), [{"firmwareVersion": "2.0"}])
        self.assertEqual(self.progress(), [("succeeded", 100, None)])

    def crash_until_it_goes_back(self, causes, polls=8):
        for cause in causes[:-1]:
            self.boots("ota_1", cause, polls)
            self.assertEqual(self.progress(), [])
        with self.assertRaises(Reset):
            self.boots("ota_1", causes[-1])

    def is_back(self, cause=HARD):
        self.boots("ota_0", cause)
        self.assertEqual(self.bodies("version"), [{"firmwareVersion": "1.0"}])
        self.assertEqual(self.progress(), [("failed", 0, 464)])
        report = self.sent("progress")[0]
        self.assertEqual(report["msgId"], "m1")
        self.assertEqual(report["data"]["firmwareVersion"], "2.0")
        self.assertEqual(boot.states(), [(3, boot.VALID), (2, boot.VALID)])
        self.assertFalse("ota.late" in sys.modules)

    def test_from_the_confirmation_to_the_report(self):
        self.confirmed()
        self.crash_until_it_goes_back([HARD, WDT, HARD])
        self.is_back()

    def test_is_told_once_and_it_stays(self):
        self.confirmed()
        self.crash_until_it_goes_back([WDT, WDT, WDT])
        self.is_back()
        for cause in (HARD, HARD, POWER_ON):
            self.boots("ota_0", cause)
            self.assertEqual(self.progress(), [])

    def test_failure_is_told_when_the_success_was_not(self):
        self.boots("ota_1", HARD, polls=1)
        self.assertEqual(read_journal().state, 4)  # the broker has not acknowledged it
        self.crash_until_it_goes_back([HARD, HARD, HARD], polls=0)
        self.is_back()

    def test_same_command_is_415_from_then_on(self):
        self.confirmed()
        self.crash_until_it_goes_back([HARD, HARD, HARD])
        self.is_back()
        self.command()
        self.poll(3)
        self.assertEqual(self.replies(), [("m1", 415)])

    def test_power_cut_right_after_the_switch(self):
        self.confirmed()
        self.crash_until_it_goes_back([HARD, HARD, HARD])
        self.is_back(POWER_ON)

    def test_starts_between_the_crashes_that_are_no_crashes(self):
        self.confirmed()
        self.boots("ota_1", HARD)
        self.boots("ota_1", POWER_ON)
        self.boots("ota_1", WDT)
        self.boots("ota_1", POWER_ON)
        self.crash_until_it_goes_back([HARD])
        self.is_back()

    def test_calm_start_ends_it(self):
        self.confirmed()
        self.boots("ota_1", HARD)
        self.boots("ota_1", HARD)
        self.clock.advance(600000)
        self.poll()
        for _ in range(4):
            self.boots("ota_1", HARD)
        self.assertEqual(self.bodies("version"), [{"firmwareVersion": "2.0"}])

    def test_old_image_that_does_not_come_up_either_is_not_tried_again(self):
        self.confirmed()
        self.crash_until_it_goes_back([HARD, HARD, HARD])
        self.assertEqual(self._restart(), "ota_0")  # hangs before the agent begins
        for cause in (WDT, HARD, HARD, HARD):
            self.boots("ota_1", cause)
            self.assertEqual(late(), 0)
            self.assertEqual(self.progress(), [])
