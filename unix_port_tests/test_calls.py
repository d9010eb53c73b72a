"""
Tests of the guidance's calls, but for the three of a download (test_fetching.py): the good case
and each error of each.

Source of the expected values: the guidance's descriptions of the calls, the codes in
docs/protocol.md.
"""

import bootrecords
from agents import PREFIX, AgentCase, Client, PlainClient
from fakes import Reset, data

from ota.agent import OTA


class InitTests(AgentCase):
    def test_subscribes_both_topics_at_qos_1(self):
        self.start()
        self.assertEqual(self.client.topics, [(PREFIX + "upgrade", 1), (PREFIX + "get_reply", 1)])

    def test_takes_the_callback_of_the_client(self):
        self.start()
        self.command()
        self.poll(4)
        self.assertEqual(self.replies(), [("m1", 200)])

    def test_identifier_goes_into_the_topics_instead_of_the_name(self):
        client = Client()
        OTA("pk", "name", client, identifier="dev")
        self.assertEqual(client.topics[0][0], PREFIX + "upgrade")

    def test_ids_with_all_that_they_may_hold(self):
        for product, device in (("p" * 64, "d"), ("a.b_c-d:e@f", "0"), ("p", "aa:bb:cc")):
            client = Client()
            OTA(product, device, client)
            expected = "/sys/%s/%s/ota/firmware/upgrade" % (product, device)
            self.assertEqual(client.topics[0][0], expected)

    def test_bad_ids_are_480(self):
        for bad in (
            "",
            None,
            5,
            b"pk",
            "p" * 65,
            "a/b",
            "a+b",
            "a#",
            "a b",
            "a&b",
            "\u00e9",
            "a\n",
        ):
            self.assertCode(480, OTA, bad, "dev", Client())
            if bad not in ("", None):
                self.assertCode(480, OTA, "pk", "dev", Client(), identifier=bad)
            self.assertCode(480, OTA, "pk", bad, Client(), identifier="dev")

    def test_unknown_setting_is_480(self):
        self.assertCode(480, self.start, nothing=1)

    def test_settings_are_taken(self):
        agent = self.start(tries=7, stall_s=3)
        self.assertEqual((agent.tries, agent.stall_s, OTA.tries), (7, 3, 5))

    def test_subscribe_that_fails_is_482(self):
        class Refusal(Exception):
            pass

        for error in (OSError(104), AssertionError(), Refusal(128)):
            client = Client()

            def subscribe(topic, qos, error=error):
                raise error

            client.subscribe = subscribe
            self.assertCode(482, OTA, "pk", "dev", client)

    def test_plain_client_speaks_at_once(self):
        self.start(PlainClient())
        self.assertEqual([name for name, _, _ in self.client.sent], ["version", "get"])

    def test_nothing_is_said_before_a_link_is_up(self):
        self.start(Client(up=0))
        self.poll(3)
        self.assertEqual(self.client.sent, [])


class DestroyTests(AgentCase):
    def test_calls_after_it_are_481(self):
        agent = self.ready()
        agent.destroy()
        for call, arguments in (
            (agent.poll, ()),
            (agent.report_progress, ("downloading", 5)),
            (agent.report_firmware_version, ()),
            (agent.fetch_yield, (bytearray(8), 1)),
            (agent.get_firmware_info, ("1.0",)),
            (agent.connected, ()),
        ):
            self.assertCode(481, call, *arguments)

    def test_twice_is_harmless(self):
        agent = self.ready()
        agent.destroy()
        agent.destroy()
        self.assertIs(agent.is_fetching(), False)
        self.assertEqual(self.client.sent, [])

    def test_drops_what_comes_later(self):
        agent = self.ready()
        agent.destroy()
        self.command()
        self.client.check_msg()
        self.assertEqual(self.client.sent, [])

    def test_client_has_its_callback_back(self):
        found = []
        client = Client()
        client.set_callback(lambda *message: found.append(message))
        own = client.cb
        for _ in range(2):  # the second agent goes on with it, not with the first one
            self.start(client)
            client.inbox.append((b"app/topic", b"while"))
            self.poll()
            self.assertEqual(len(found), 1)
            self.agent.destroy()
            self.assertIs(client.cb, own)
            client.inbox.append((b"app/topic", b"after"))
            client.check_msg()
            self.assertEqual(found, [(b"app/topic", b"while"), (b"app/topic", b"after")])
            del found[:]

    def test_a_new_agent_works_on_the_same_client(self):
        self.ready().destroy()
        self.start(self.client)
        self.command()
        self.poll(5)
        self.assertEqual(self.replies(), [("m1", 200)])

    def test_with_destroys(self):
        with self.ready() as agent:
            agent.poll()
        self.assertCode(481, agent.poll)

    def test_with_destroys_after_an_error_and_lets_it_through(self):
        try:
            with self.ready() as agent:
                raise KeyError
        except KeyError:
            self.assertCode(481, agent.poll)
        else:
            self.fail("the error was swallowed")


class ReportProgressTests(AgentCase):
    def test_message(self):
        self.ready().report_progress("downloading", 42)
        ((name, message, qos),) = self.client.sent
        self.assertEqual((name, qos, message["version"]), ("progress", 0, "1.0"))
        self.assertEqual(message["data"]["status"], "downloading")
        self.assertEqual(message["data"]["progress"], 42)

    def test_bounds(self):
        agent = self.ready()
        for progress in (0, 1, 100):
            agent.report_progress("downloading", progress)
        self.assertEqual([one[1] for one in self.progress()], [0, 1, 100])

    def test_final_ones_go_at_qos_1(self):
        agent = self.ready()
        for status in ("succeeded", "failed"):
            del self.client.sent[:]
            agent.report_progress(status, 100)
            self.poll()
            self.assertEqual([qos for _, _, qos in self.client.sent], [1])

    def test_out_of_range_is_480(self):
        agent = self.ready()
        for progress in (-1, 101, 1 << 40, 50.0, "50", None, True):
            self.assertCode(480, agent.report_progress, "downloading", progress)
        self.assertEqual(self.client.sent, [])


class TrialTests(AgentCase):
    def setUp(self):
        super().setUp()
        bootrecords.write((1, bootrecords.PENDING_VERIFY), bootrecords.BLANK)
        self.passed = None
        self.start(self_test=lambda: self.passed)

    def test_progress_does_not_move_the_end_of_a_trial(self):
        self.poll()
        for _ in range(299):
            self.clock.advance(1000)
            self.agent.report_progress("downloading", 5)
            self.poll()
            del self.client.sent[:]
        self.clock.advance(1000)
        self.agent.report_progress("downloading", 5)
        with self.assertRaises(Reset):
            self.poll()

    def test_version_is_not_told_before_the_self_test_passed(self):
        for _ in range(2):  # before MQTT is reached, and after it
            self.agent.report_firmware_version()
            self.poll(3)
            self.assertEqual(self.sent("version"), [])
        self.passed = True
        self.poll(2)
        self.agent.report_firmware_version("1.2.3")
        self.poll(3)
        self.assertIn({"firmwareVersion": "1.2.3"}, self.bodies("version"))


class ReportVersionTests(AgentCase):
    def test_running_version_by_default(self):
        agent = self.ready()
        agent.report_firmware_version()
        self.assertEqual(self.bodies("version"), [{"firmwareVersion": agent.version}])
        self.assertEqual(self.client.sent[0][2], 1)

    def test_version_that_is_given(self):
        self.ready().report_firmware_version("9.9-x_Y")
        self.assertEqual(self.bodies("version"), [{"firmwareVersion": "9.9-x_Y"}])

    def test_what_is_no_version_is_480(self):
        agent = self.ready()
        for bad in ("1 0", "v" * 101, "1/0", 1.0, b"1.0", "\u00e9", ["1"]):
            self.assertCode(480, agent.report_firmware_version, bad)
        self.assertEqual(self.client.sent, [])


class GetFirmwareInfoTests(AgentCase):
    def test_returns_the_msg_id_of_the_request(self):
        msg_id = self.ready().get_firmware_info("1.5")
        ((name, message, qos),) = self.client.sent
        self.assertEqual((name, qos), ("get", 1))
        self.assertEqual(message["msgId"], msg_id)
        self.assertEqual(message["data"], {"firmwareVersion": "1.5"})

    def test_on_behalf_of_another_device(self):
        self.ready().get_firmware_info("1.5", "other", "child")
        expected = {"firmwareVersion": "1.5", "productKey": "other", "identifier": "child"}
        self.assertEqual(self.bodies("get"), [expected])

    def test_answer_goes_to_on_info(self):
        found = []
        agent = self.ready(on_info=lambda *answer: found.append(answer))
        msg_id = agent.get_firmware_info("1.5")
        self.answer(data("1.5", policy=None, size=None))
        self.poll(2)
        self.assertEqual(found, [(msg_id, None, data("1.5", policy=None, size=None))])

    def test_version_that_is_not_there(self):
        found = []
        agent = self.ready(on_info=lambda *answer: found.append(answer))
        msg_id = agent.get_firmware_info("1.5")
        self.answer(None)
        self.poll(2)
        self.assertEqual(found, [(msg_id, 404, None)])

    def test_each_request_has_an_id_of_its_own(self):
        agent = self.ready()
        self.assertNotEqual(agent.get_firmware_info("1"), agent.get_firmware_info("1"))

    def test_what_is_no_version_is_480(self):
        agent = self.ready()
        for bad in ("1 0", "v" * 101, None, 7, b"1"):
            self.assertCode(480, agent.get_firmware_info, bad)
        self.assertEqual(self.client.sent, [])
