"""
Tests of ota/agent.py: silent upgrades, which begin when the application says so.

Source of the expected values: "Messages" and "Device rules" in docs/protocol.md.
"""

from agents import AgentCase
from fakes import SIGN, data
from journals import read_journal

BODY_COMES = b"HTTP/1.0 200 OK\r\nContent-Length: 4096\r\n\r\n"  # then silence


class HookTests(AgentCase):
    def setUp(self):
        super().setUp()
        self.asked = []
        self.may = False

    def on_silent(self, command):
        self.asked.append(command)
        return self.may

    def begin(self):
        self.ready(on_silent=self.on_silent)
        self.net.script(BODY_COMES)
        self.command(policy="silent")
        self.poll(2)

    def test_is_answered_202_and_asked_about(self):
        self.begin()
        self.assertEqual(self.replies(), [("m1", 202)])
        self.assertEqual(len(self.asked), 1)
        self.assertFalse(self.agent.is_fetching())

    def test_hook_gets_the_command(self):
        self.begin()
        command = self.asked[0]
        self.assertEqual((command.version, command.size, command.sign), ("2.0", 4096, SIGN))
        self.assertTrue(command.silent)

    def test_later_later_yes(self):
        self.begin()
        self.clock.advance(60000)
        self.poll(2)
        self.assertEqual(len(self.asked), 2)
        self.may = True
        self.clock.advance(60000)
        self.poll(3)
        self.assertEqual(len(self.asked), 3)
        self.assertTrue(self.agent.is_fetching())
        self.assertEqual(self.progress(), [("downloading", 0, None)])

    def test_is_asked_once_a_minute(self):
        self.begin()
        for _ in range(599):
            self.clock.advance(100)
            self.poll()
        self.assertEqual(len(self.asked), 1)
        self.clock.advance(100)
        self.poll()
        self.assertEqual(len(self.asked), 2)

    def test_yes_at_once(self):
        self.may = True
        self.begin()
        self.poll()
        self.assertEqual(len(self.asked), 1)
        self.assertTrue(self.agent.is_fetching())

    def test_nothing_is_fetched_before(self):
        self.begin()
        self.assertEqual(self.net.sockets, [])
        self.assertEqual(self.progress(), [])

    def test_standard_command_does_not_wait(self):
        self.begin()
        self.command("m2")
        self.poll(3)
        self.assertEqual(self.replies()[-1], ("m2", 200))
        self.assertTrue(self.agent.is_fetching())
        self.assertEqual(self.sent("progress")[0]["msgId"], "m2")

    def test_newer_silent_command_takes_its_place(self):
        self.begin()
        self.command("m2", "3.0", policy="silent")
        self.may = True
        self.poll(3)
        self.assertEqual(self.replies()[-1], ("m2", 202))
        self.assertEqual(self.asked[-1].version, "3.0")

    def test_answer_without_policy_asks(self):
        self.may = True
        self.start(on_silent=self.on_silent)
        self.poll(3)
        self.net.script(BODY_COMES)
        self.answer(data(policy=None, size=None))
        self.poll(3)
        self.assertEqual(len(self.asked), 1)
        self.assertTrue(self.agent.is_fetching())

    def test_application_that_cancels_when_it_is_asked(self):
        def on_silent(command):
            self.agent.cancel()
            return True

        self.ready(on_silent=on_silent)
        self.command(policy="silent")
        self.poll(5)
        self.assertEqual([code for _, _, code in self.progress()], [470])
        self.assertEqual(self.net.sockets, [])

    def test_cancel_ends_the_waiting(self):
        self.begin()
        self.agent.cancel()
        self.clock.advance(60000)
        self.poll(3)
        self.assertEqual(len(self.asked), 1)
        self.assertEqual(self.progress(), [("failed", 0, 470)])
        self.assertEqual(self.sent("progress")[0]["msgId"], "m1")


class NextStartTests(AgentCase):
    def begin(self):
        self.ready()
        self.command(policy="silent")
        self.poll(2)

    def test_is_answered_202_and_waits(self):
        self.begin()
        self.clock.advance(600000)
        self.poll(5)
        self.assertEqual(self.replies(), [("m1", 202)])
        self.assertEqual(self.net.sockets, [])
        self.assertEqual(self.progress(), [])

    def test_does_not_write_over_an_outcome_that_is_not_told(self):
        self.ready(tries=0)
        self.client.lost = "progress"
        self.command()
        self.poll(4)
        self.command("m2", "3.0", policy="silent")
        for _ in range(3):
            self.clock.advance(60000)
            self.poll(2)
        found = read_journal()
        self.assertEqual((found.state, found.msg_id, found.code), (4, "m1", 430))
        self.client.lost = ()
        self.client.reconnect()
        self.poll(8)
        self.clock.advance(60000)
        self.poll(2)
        found = read_journal()
        self.assertEqual((found.state, found.msg_id, found.code), (1, "m2", 0))
        self.assertEqual(self.replies(), [("m1", 200), ("m2", 202)])

    def test_is_noted_once(self):
        self.begin()
        turn = read_journal().turn
        for _ in range(10):
            self.clock.advance(60000)
            self.poll(2)
        found = read_journal()
        self.assertEqual((found.state, found.msg_id, found.turn), (1, "m1", turn))

    def test_begins_at_the_next_start_when_the_platform_tells_it_again(self):
        self.begin()
        self.start()
        self.poll(3)
        self.assertFalse(self.agent.is_fetching())
        self.net.script(BODY_COMES)
        self.answer(data(policy="silent"))
        self.poll(3)
        self.assertEqual([code for _, code in self.replies()], [200])
        self.assertTrue(self.agent.is_fetching())

    def test_reports_under_the_msg_id_of_the_command(self):
        self.test_begins_at_the_next_start_when_the_platform_tells_it_again()
        self.assertEqual(self.sent("progress")[0]["msgId"], "m1")

    def test_another_silent_one_waits_for_one_more_start(self):
        self.begin()
        self.start()
        self.poll(3)
        self.answer(data(policy="silent", sign="f" * 32))
        self.poll(3)
        self.assertEqual([code for _, code in self.replies()], [202])
        self.assertFalse(self.agent.is_fetching())

    def test_taken_back_by_the_platform(self):
        self.begin()
        self.ready()
        self.clock.advance(600000)
        self.poll(3)
        self.assertFalse(self.agent.is_fetching())
        self.assertEqual(self.progress(), [])

    def test_twice_is_answered_twice(self):
        self.begin()
        self.command(policy="silent")
        self.poll(2)
        self.assertEqual(self.replies(), [("m1", 202)] * 2)
