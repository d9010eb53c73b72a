"""
Tests of ota/agent.py: commands and answers, taken on or refused.

Source of the expected values: "Device rules", topics and codes in docs/protocol.md.
"""

import json

import bootrecords
from agents import PREFIX, AgentCase, Client, PlainClient
from fakes import data

OTHER_SIGN = "f" * 32
UPGRADE = PREFIX + "upgrade"
BODY_COMES = b"HTTP/1.0 200 OK\r\n\r\n"  # then silence: a download that lasts


class StartTests(AgentCase):
    def test_tells_its_version_then_asks(self):
        agent = self.start()
        self.poll(4)
        self.assertEqual(
            [(name, qos) for name, _, qos in self.client.sent], [("version", 1), ("get", 1)]
        )
        self.assertEqual(self.bodies("version"), [{"firmwareVersion": agent.version}])
        self.assertEqual(self.bodies("get"), [{"firmwareVersion": ""}])

    def test_asks_after_each_reconnection(self):
        self.ready()
        for times in (1, 2, 3):
            self.client.reconnect()
            self.poll(3)
            self.assertEqual(self.bodies("get"), [{"firmwareVersion": ""}] * times)
        ids = {message["msgId"] for message in self.sent("get")}
        self.assertEqual(len(ids), 3)

    def test_version_is_told_once_a_start(self):
        self.ready()
        self.client.reconnect()
        self.poll(4)
        self.assertEqual(self.sent("version"), [])

    def test_version_that_was_not_acknowledged_is_told_again(self):
        self.start()
        self.client.acks = False
        self.poll(2)
        self.client.reconnect()
        self.client.acks = True
        self.poll(6)
        told = len(self.sent("version"))
        self.assertTrue(told >= 2)
        self.client.reconnect()
        self.poll(4)
        self.assertEqual(len(self.sent("version")), told)

    def test_plain_client_that_was_connected_again(self):
        self.start(PlainClient())
        self.agent.connected()
        self.assertEqual([name for name, _, _ in self.client.sent], ["version", "get", "get"])


class CommandTests(AgentCase):
    def test_is_answered_and_begun(self):
        agent = self.ready()
        self.net.script(BODY_COMES)
        self.command()
        self.poll(2)
        self.assertEqual(self.replies(), [("m1", 200)])
        self.assertEqual(self.client.sent[0][2], 1)
        self.assertTrue(agent.is_fetching())

    def test_is_never_answered_inside_the_callback(self):
        # The client of the tests raises when it is.
        self.ready()
        self.command()
        self.client.check_msg()
        self.assertEqual(self.client.sent, [])
        self.poll()
        self.assertEqual(self.replies(), [("m1", 200)])

    def test_number_as_msg_id(self):
        self.ready()
        self.say("upgrade", {"msgId ": 42, "data ": data()})
        self.poll()
        self.assertEqual(self.replies(), [("42", 200)])

    def test_twice_starts_one_and_is_answered_twice(self):
        self.ready()
        self.net.script(BODY_COMES)
        for _ in range(2):
            self.command()
            self.poll(3)
        self.assertEqual(self.replies(), [("m1", 200)] * 2)
        self.assertEqual(len(self.net.sockets), 1)
        self.assertEqual(self.progress(), [("downloading", 0, None)])

    def test_command_twice_in_one_poll_is_answered_twice(self):
        self.ready()
        self.net.script(BODY_COMES)
        self.command()
        self.command()
        self.poll(4)
        self.assertEqual(self.replies(), [("m1", 200)] * 2)
        self.assertEqual(len(self.net.sockets), 1)

    def test_another_version_while_one_downloads_is_413(self):
        agent = self.ready()
        self.net.script(BODY_COMES)
        self.command()
        self.poll(2)
        self.command("m2", "3.0")
        self.poll(2)
        self.assertEqual(self.replies(), [("m1", 200), ("m2", 413)])
        self.assertTrue(agent.is_fetching())
        self.assertEqual(len(self.net.sockets), 1)

    def test_same_version_while_it_downloads_is_answered_only(self):
        self.ready()
        self.net.script(BODY_COMES)
        self.command()
        self.poll(2)
        self.command("m2", sign=OTHER_SIGN)
        self.poll(2)
        self.assertEqual(self.replies(), [("m1", 200), ("m2", 200)])
        self.assertEqual(len(self.net.sockets), 1)

    def test_running_version_is_a_success_without_a_download(self):
        for policy in ("standard", "silent"):
            agent = self.ready()
            self.command(version=agent.version, policy=policy)
            self.poll(3)
            self.assertEqual(self.replies(), [("m1", 200)])
            self.assertEqual(self.progress(), [("succeeded", 100, None)])
            self.assertEqual(self.sent("progress")[0]["msgId"], "m1")
            self.assertEqual(self.net.sockets, [])
            self.assertEqual(self.machine.resets, 0)

    def test_reply_leaves_while_a_server_is_slow(self):
        # At most 10 s: a download's call lasts 5.
        self.ready()
        self.command()
        self.net.script()  # silent from the first byte
        self.poll()
        self.command("m2", "3.0")
        before = self.clock.now
        self.poll()
        self.assertEqual(self.replies()[-1], ("m2", 413))
        self.assertTrue(self.clock.since(before) <= 5000)

    def test_bad_ones_are_refused_and_change_nothing(self):
        records = bootrecords.read()
        agent = self.ready()
        for changes, code in (
            ({"size": 0}, 410),
            ({"size": "4096"}, 410),
            ({"firmwareVersion": None}, 410),
            ({"sign": "text"}, 410),
            ({"policy": "forced"}, 411),
            ({"signMethod": "Sha256"}, 412),
            ({"url": "ftp://host/f"}, 414),
            ({"url": "http://host/a b"}, 414),
        ):
            del self.client.sent[:]
            self.command(**changes)
            self.poll(3)
            self.assertEqual(self.replies(), [("m1", code)], changes)
            self.assertEqual([name for name, _, _ in self.client.sent], ["upgrade_reply"])
        self.assertFalse(agent.is_fetching())
        self.assertEqual(bootrecords.read(), records)

    def test_what_is_no_message_is_410(self):
        self.ready()
        for text in (b"", b"hello", b"[]", b'{"msgId":', b"\xff"):
            del self.client.sent[:]
            self.say("upgrade", text)
            self.poll(2)
            self.assertEqual(self.replies(), [("", 410)], text)

    def test_no_fields_at_all_is_410(self):
        self.ready()
        for body in (b'{"msgId":"m1"}', b'{"msgId":"m1","data":[]}', b'{"msgId":"m1","data":{}}'):
            del self.client.sent[:]
            self.say("upgrade", body)
            self.poll(2)
            self.assertEqual(self.replies(), [("m1", 410)], body)

    def test_refused_one_does_not_keep_the_next_from_beginning(self):
        agent = self.ready()
        self.net.script(BODY_COMES)
        self.command(url="ftp://host/f")
        self.command("m2")
        self.poll(4)
        self.assertEqual(self.replies(), [("m1", 414), ("m2", 200)])
        self.assertTrue(agent.is_fetching())


class FailedBeforeTests(AgentCase):
    def fail_once(self):
        self.ready(tries=0)
        self.command()
        self.poll(5)
        self.assertEqual(self.progress()[-1], ("failed", 0, 430))
        del self.client.sent[:]
        del self.net.sockets[:]

    def test_same_msg_id_is_415(self):
        self.fail_once()
        for _ in range(3):
            self.command()
            self.poll(2)
        self.assertEqual(self.replies(), [("m1", 415)] * 3)
        self.assertEqual(self.net.sockets, [])

    def test_same_msg_id_is_415_after_a_restart(self):
        self.fail_once()
        self.ready()
        self.command()
        self.poll(2)
        self.assertEqual(self.replies(), [("m1", 415)])
        self.assertEqual(self.net.sockets, [])

    def test_answer_to_get_with_the_same_sign_is_415(self):
        self.fail_once()
        self.client.reconnect()
        self.poll(3)
        self.answer(data())
        self.poll(3)
        self.assertEqual([code for _, code in self.replies()], [415])
        self.assertEqual(self.net.sockets, [])

    def test_answer_to_get_with_another_sign_is_taken(self):
        self.fail_once()
        self.client.reconnect()
        self.poll(3)
        self.answer(data(sign=OTHER_SIGN))
        self.poll(3)
        self.assertEqual([code for _, code in self.replies()], [200])
        self.assertEqual(len(self.net.sockets), 1)

    def test_command_that_came_while_its_version_downloaded_is_415(self):
        # Begun by an answer to get, so under another msgId than the retained command's.
        self.start()
        self.poll(3)
        self.net.script(BODY_COMES)
        self.answer(data())
        self.poll(3)
        self.command()
        self.poll(2)
        self.agent.cancel()
        self.command()
        self.poll(4)
        self.assertEqual(self.replies()[1:], [("m1", 200), ("m1", 415)])
        self.assertEqual(len(self.net.sockets), 1)

    def test_another_msg_id_is_taken(self):
        self.fail_once()
        self.command("m2")
        self.poll(3)
        self.assertEqual(self.replies(), [("m2", 200)])
        self.assertEqual(len(self.net.sockets), 1)


class PendingTests(AgentCase):
    def setUp(self):
        super().setUp()
        bootrecords.write((1, bootrecords.PENDING_VERIFY), bootrecords.BLANK)
        self.passed = None
        self.start(self_test=lambda: self.passed)
        self.poll(3)

    def test_is_416(self):
        self.command(version="9.9")
        self.poll(2)
        self.assertEqual(self.replies(), [("m1", 416)])
        self.assertEqual(self.net.sockets, [])

    def test_does_not_ask_for_another_one(self):
        self.client.reconnect()
        self.poll(3)
        self.assertEqual(self.sent("get"), [])

    def test_cancel_does_nothing(self):
        self.agent.cancel()
        self.poll()
        self.assertEqual(self.sent("progress"), [])

    def test_after_the_trial_it_asks_and_takes(self):
        self.passed = True
        self.poll(6)
        self.assertEqual(len(self.sent("get")), 1)
        self.command(version="9.9")
        self.net.script(BODY_COMES)
        self.poll(4)
        self.assertEqual(self.replies(), [("m1", 200)])


class GetTests(AgentCase):
    def ask(self):
        self.start()
        self.poll(3)

    def test_answer_with_policy_standard_begins(self):
        self.ask()
        self.net.script(BODY_COMES)
        self.answer(data())
        self.poll(3)
        self.assertEqual(self.replies(), [(self.sent("get")[0]["msgId"], 200)])
        self.assertTrue(self.agent.is_fetching())

    def test_answer_without_size_begins(self):
        self.ask()
        self.net.script(b"HTTP/1.0 200 OK\r\nContent-Length: 4096\r\n\r\n")
        self.answer(data(size=None))
        self.poll(3)
        self.assertTrue(self.agent.is_fetching())

    def test_answer_without_policy_is_silent(self):
        self.ask()
        self.answer(data(policy=None))
        self.poll(3)
        self.assertEqual([code for _, code in self.replies()], [202])
        self.assertFalse(self.agent.is_fetching())

    def test_404_is_no_command(self):
        self.ask()
        self.answer(None)
        self.poll(3)
        self.assertEqual(self.replies(), [])

    def test_only_the_first_answer_counts(self):
        self.ask()
        self.answer(None)
        self.answer(data())
        self.poll(3)
        self.assertEqual(self.replies(), [])
        self.assertFalse(self.agent.is_fetching())

    def test_answer_to_an_older_get_begins_nothing(self):
        self.ask()
        old = self.sent("get")[0]["msgId"]
        self.client.reconnect()
        self.poll(3)
        self.answer(data(), old)
        self.poll(3)
        self.assertEqual(self.replies(), [])
        self.assertFalse(self.agent.is_fetching())

    def test_answer_to_get_firmware_info_begins_nothing(self):
        agent = self.ready()
        for version in ("2.0", ""):
            msg_id = agent.get_firmware_info(version)
            self.answer(data(), msg_id)
            self.poll(3)
        self.assertEqual(self.replies(), [])
        self.assertFalse(agent.is_fetching())

    def test_answer_without_msg_id_begins_nothing(self):
        self.ask()
        self.say("get_reply", {"data": data()})
        self.poll(3)
        self.assertEqual(self.replies(), [])
        self.assertFalse(self.agent.is_fetching())

    def test_answer_on_the_topic_of_commands_begins_nothing(self):
        # No policy, no size: it is no command.
        self.ask()
        self.say("upgrade", {"msgId": "x", "data": data(policy=None, size=None)})
        self.poll(3)
        self.assertEqual(self.replies(), [("x", 410)])

    def test_bad_answer_is_refused(self):
        self.ask()
        self.answer(data(url="ftp://host/f"))
        self.poll(3)
        self.assertEqual([code for _, code in self.replies()], [414])


class ForeignTests(AgentCase):
    def test_goes_to_on_message(self):
        found = []
        self.ready(on_message=lambda *message: found.append(message))
        for topic in (
            b"app/topic",
            (PREFIX + "upgrade/x").encode(),
            b"/sys/pk/other/ota/firmware/upgrade",
        ):
            del found[:]
            self.client.inbox.append((topic, b"text"))
            self.poll()
            self.assertEqual(found, [(topic, b"text")])
        self.assertEqual(self.client.sent, [])

    def test_goes_to_the_callback_that_the_client_had(self):
        found = []
        client = Client()
        client.set_callback(lambda *message: found.append(message))
        self.start(client)
        client.inbox.append((b"app/topic", b"\xff\x00"))
        self.poll()
        self.assertEqual(found, [(b"app/topic", b"\xff\x00")])

    def test_is_dropped_when_nobody_wants_it(self):
        self.ready()
        self.client.inbox.append((b"app/topic", b"text"))
        self.poll()
        self.assertEqual(self.client.sent, [])

    def test_topic_that_is_no_text(self):
        found = []
        for on_message in (lambda *message: found.append(message), None):
            self.ready(on_message=on_message)
            self.client.inbox.append((b"app/\xff\xfe", b"text"))
            self.command("m1", url="ftp://host/f")
            self.poll()
            self.assertEqual(self.replies(), [("m1", 414)])
        self.assertEqual(found, [(b"app/\xff\xfe", b"text")])

    def test_may_publish_and_comes_in_order(self):
        found = []

        def on_message(topic, msg):
            found.append(msg)
            self.client.publish(PREFIX + "other", json.dumps(len(found)), False, 1)

        self.ready(on_message=on_message)
        for text in (b"a", b"b", b"c"):
            self.client.inbox.append((b"app/topic", text))
        self.poll()
        self.assertEqual(found, [b"a", b"b", b"c"])
        self.assertEqual(self.sent("other"), [1, 2, 3])

    def test_flood_is_bounded(self):
        found = []
        self.ready(on_message=lambda *message: found.append(message))
        for _ in range(100):
            self.client.inbox.append((b"app/topic", b"text"))
        self.poll()
        self.assertEqual(len(found), 8)
        self.command()
        self.poll()
        self.assertEqual(self.replies(), [("m1", 200)])
