"""
Tests of ota/agent.py: what is reported, how often, and until when.

Source of the expected values: "Statuses and codes" and "Device rules" in docs/protocol.md.
"""

import bootrecords
import images
from agents import AgentCase, Client, PlainClient
from esp32 import Partition
from fakes import Reset, data
from files import File, Image
from journals import read_journal

import ota.download
from ota.agent import Journal
from ota.protocol import command

_BLOCK = 4096


class WholeTests(AgentCase):
    def upgrade(self, **settings):
        # Up to the point where all that is left is the restart.
        self.file = Image(bytes(images.application(640)))
        self.ready(**settings)
        self.serve(self.file.row(0) + self.file.row(512))
        self.command(sign=self.file.sign, size=640)
        self.poll(3)

    def test_statuses_in_their_order(self):
        self.upgrade()
        expected = [
            ("downloading", 0, None),
            ("verifying", 96, None),
            ("burning", 97, None),
            ("restarting", 98, None),
        ]
        self.assertEqual(self.progress(), expected)

    def test_each_names_the_command_and_the_version(self):
        self.upgrade()
        for message in self.sent("progress"):
            self.assertEqual(message["msgId"], "m1")
            self.assertEqual(message["data"]["firmwareVersion"], "2.0")

    def test_running_ones_go_at_qos_0(self):
        self.upgrade()
        self.assertEqual({qos for name, _, qos in self.client.sent if name == "progress"}, {0})

    def test_restarts_into_the_new_image(self):
        running = Partition(Partition.RUNNING)
        self.upgrade()
        with self.assertRaises(Reset):
            self.poll(2)
        self.assertEqual(Partition(Partition.BOOT).info(), running.get_next_update().info())
        self.assertEqual(read_journal().state, 3)

    def test_last_messages_leave_before_the_restart(self):
        self.upgrade()
        self.client.acks = False
        self.agent.report_firmware_version()
        self.poll(20)
        self.assertEqual(self.machine.resets, 0)
        self.client.acks = True
        with self.assertRaises(Reset):
            self.poll(2)

    def test_restart_waits_for_them_ten_seconds_at_most(self):
        self.upgrade()
        self.client.acks = False
        self.agent.report_firmware_version()
        self.clock.advance(9900)
        self.poll(2)
        self.assertEqual(self.machine.resets, 0)
        self.clock.advance(100)
        with self.assertRaises(Reset):
            self.poll()

    def test_progress_of_the_application_does_not_move_the_restart(self):
        self.upgrade()
        self.client.acks = False
        self.agent.report_firmware_version()
        for _ in range(9):
            self.clock.advance(1000)
            self.agent.report_progress("restarting", 98)
            self.poll()
        self.clock.advance(1000)
        self.agent.report_progress("restarting", 98)
        with self.assertRaises(Reset):
            self.poll()

    def test_cannot_be_cancelled_any_more(self):
        self.upgrade()
        self.agent.cancel()
        self.assertEqual(self.progress()[-1], ("restarting", 98, None))
        with self.assertRaises(Reset):
            self.poll(2)

    def test_another_command_is_refused_now(self):
        self.upgrade()
        self.client.acks = False
        self.command("m2", "3.0")
        self.poll(2)
        self.assertEqual(self.replies()[-1], ("m2", 413))

    def test_download_has_ended(self):
        self.upgrade()
        self.assertFalse(self.agent.is_fetching())
        self.assertTrue(self.agent.fetch_finish())

    def test_over_a_plain_client(self):
        file = Image(bytes(images.application(640)))
        self.start(PlainClient())
        self.serve(file.row(0) + file.row(512))
        self.command(sign=file.sign, size=640)
        with self.assertRaises(Reset):
            self.poll(10)
        self.assertEqual(self.progress()[-1], ("restarting", 98, None))

    def test_image_that_the_chip_refuses_is_453(self):
        image = images.application(640)
        image[400] ^= 1
        file = Image(bytes(image))
        self.ready()
        self.serve(bytes(image))
        self.command(sign=file.sign, size=640)
        self.poll(6)
        self.assertEqual(self.progress()[-1], ("failed", 96, 453))
        self.assertEqual(self.machine.resets, 0)
        running = Partition(Partition.RUNNING)
        self.assertEqual(Partition(Partition.BOOT).info(), running.info())


class RateTests(AgentCase):
    def blocks(self, file, gap):
        # The file block by block, so many ms apart.
        for at in range(0, file.size, _BLOCK):
            for part in file.parts(at, at + _BLOCK):
                yield part
            yield gap

    def download(self, gap, count, **settings):
        # So many blocks of a file of 20, each of them 4.75 percent.
        file = File(20 * _BLOCK)
        self.ready(**settings)
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n", self.blocks(file, gap))
        self.command(sign=file.sign, size=file.size)
        self.poll_until(lambda: self.agent._job and self.agent._job.done >= count * _BLOCK)
        self.poll(2)
        return [progress for _, progress, _ in self.progress()]

    def test_slow_one_reports_every_five_percent(self):
        # 4, 9, 14, 19, 23, 28 and so on percent; 23 is not five more than 19.
        found = self.download(6000, 11)
        self.assertEqual(found, [0, 9, 14, 19, 28, 33, 38, 47, 52])

    def test_fast_one_reports_every_five_seconds(self):
        # The sixth block comes after 5 s, the eleventh after 10.
        found = self.download(1000, 15)
        self.assertEqual(found, [0, 28, 52])

    def test_both_are_settings(self):
        self.assertEqual(self.download(1000, 5, progress_s=2, progress_percent=1), [0, 14, 23])

    def test_percent_alone(self):
        self.assertEqual(self.download(1000, 9, progress_s=0, progress_percent=20), [0, 23])

    def test_failure_is_reported_at_once_and_where_it_stopped(self):
        self.download(1000, 6)
        self.agent.cancel()
        self.poll(2)
        self.assertEqual(self.progress()[-1], ("failed", 28, 470))


class OutcomeTests(AgentCase):
    def fail_once(self, lost=()):
        # A connection that is refused.
        self.ready(tries=0)
        self.client.lost = lost
        self.command()
        self.poll(4)

    def outcomes(self):
        return [
            (message["msgId"], message["data"]["code"])
            for message in self.sent("progress")
            if message["data"]["status"] == "failed"
        ]

    def test_goes_at_qos_1_with_code_and_message(self):
        self.fail_once()
        self.poll(2)
        name, message, qos = self.client.sent[-1]
        self.assertEqual((name, qos, message["msgId"]), ("progress", 1, "m1"))
        self.assertEqual(message["data"]["code"], 430)
        self.assertTrue(message["data"]["message"])

    def test_is_told_once_when_it_is_acknowledged(self):
        self.fail_once()
        self.poll(3)
        for _ in range(3):
            self.client.reconnect()
            self.poll(4)
        self.assertEqual(self.outcomes(), [("m1", 430)])

    def test_is_told_once_over_restarts(self):
        self.fail_once()
        self.poll(3)
        self.ready()
        self.assertEqual(self.outcomes(), [])

    def test_is_told_again_until_it_is_acknowledged(self):
        self.fail_once(lost="progress")
        for times in (2, 3, 4):
            self.client.reconnect()
            self.poll(3)
            self.assertEqual(self.outcomes(), [("m1", 430)] * times)
        self.client.lost = ()
        self.client.reconnect()
        self.poll(8)
        told = len(self.outcomes())
        self.client.reconnect()
        self.poll(8)
        self.assertEqual(len(self.outcomes()), told)

    def test_is_told_again_after_each_restart(self):
        self.fail_once(lost="progress")
        for _ in range(2):
            self.start()
            self.client.lost = "progress"
            self.poll(5)
            self.assertEqual(self.outcomes(), [("m1", 430)])

    def test_is_told_the_same_way_after_a_restart(self):
        self.fail_once(lost="progress")
        told = self.progress()[-1]
        self.start()
        self.poll(5)
        self.assertEqual(self.progress(), [told])

    def test_success_is_told_until_it_is_acknowledged_and_no_more(self):
        agent = self.ready()
        self.client.lost = "progress"
        self.command(version=agent.version)
        self.poll(4)
        self.assertEqual(self.progress(), [("succeeded", 100, None)])
        self.start()
        self.poll(6)
        self.assertEqual(self.progress(), [("succeeded", 100, None)])
        self.assertEqual(self.sent("progress")[0]["msgId"], "m1")
        self.start()
        self.poll(6)
        self.assertEqual(self.progress(), [])

    def test_next_upgrade_waits_until_it_is_told(self):
        self.fail_once(lost="progress")
        self.command("m2", "3.0")
        self.poll(5)
        self.assertFalse(self.agent.is_fetching())
        self.assertEqual(read_journal().msg_id, "m1")
        self.client.lost = ()
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n")
        self.poll(6)
        self.assertTrue(self.agent.is_fetching())


class TrialOutcomeTests(AgentCase):
    def switched(self, slot, code=0):
        # What the upgrade leaves behind: the slot that it wrote, why its trial failed.
        journal = Journal()
        journal.start(command("m1", data(), False), 3, slot)
        journal.code = code
        journal.write(3)

    def test_success_is_told_once(self):
        for client in (Client(), PlainClient()):
            bootrecords.write((1, bootrecords.PENDING_VERIFY), bootrecords.BLANK)
            self.switched(bootrecords.HERE)
            self.start(client, version="2.0")
            self.poll(10)
            self.assertEqual(bootrecords.states()[0], (1, bootrecords.VALID))
            self.assertEqual(self.progress(), [("succeeded", 100, None)])
            self.assertEqual(self.sent("progress")[0]["msgId"], "m1")

    def test_failure_is_told_once_though_its_boot_record_is_gone(self):
        # The power went while the boot loader wrote that record.
        bootrecords.write((1, bootrecords.VALID), bootrecords.BLANK)
        self.switched(bootrecords.OTHER, 461)
        self.start()
        self.poll(6)
        self.assertEqual(self.progress(), [("failed", 0, 461)])
        self.assertEqual(self.sent("progress")[0]["msgId"], "m1")
        self.start()
        self.poll(6)
        self.assertEqual(self.progress(), [])

    def test_boot_record_that_cannot_be_erased_is_452(self):
        def worn(*_):
            raise OSError(-24577)

        self.ready()
        real, ota.download.Upgrade = ota.download.Upgrade, worn
        try:
            self.command()
            self.poll(5)
        finally:
            ota.download.Upgrade = real
        self.assertEqual(self.progress(), [("failed", 0, 452)])
        self.assertEqual(self.net.sockets, [])


class OutboxTests(AgentCase):
    def test_is_kept_while_publish_raises(self):
        agent = self.ready()
        self.client.fault = OSError(104)
        self.command(version=agent.version)
        self.poll(5)
        self.assertEqual(self.client.sent, [])
        self.client.fault = None
        self.poll(5)
        sent = [name for name, _, _ in self.client.sent]
        self.assertEqual(sent, ["upgrade_reply", "version", "progress"])

    def test_is_kept_while_the_link_is_down(self):
        agent = self.ready()
        up, self.client.up = self.client.up, 0
        msg_id = agent.get_firmware_info("1.0")
        agent.report_progress("downloading", 7)
        self.poll(5)
        self.assertEqual(self.client.sent, [])
        self.client.up = up + 2
        self.poll(6)
        self.assertEqual(self.sent("get")[0]["msgId"], msg_id)
        self.assertEqual(self.progress(), [("downloading", 7, None)])

    def test_one_message_at_qos_1_at_a_time_and_in_order(self):
        agent = self.ready()
        self.client.acks = False
        ids = [agent.get_firmware_info("1.%d" % i) for i in range(3)]
        self.poll(3)
        self.assertEqual(len(self.client.sent), 1)
        self.client.acks = True
        self.poll(3)
        self.assertEqual([message["msgId"] for message in self.sent("get")], ids)

    def test_message_under_way_is_sent_again_after_a_reconnection(self):
        agent = self.ready()
        self.client.acks = False
        msg_id = agent.get_firmware_info("1.0")
        self.client.reconnect()
        self.poll()
        self.assertEqual([message["msgId"] for message in self.sent("get")], [msg_id] * 2)

    def test_is_bounded(self):
        agent = self.ready()
        self.client.acks = False
        ids = [agent.get_firmware_info("1.%d" % i) for i in range(40)]
        self.client.acks = True
        self.poll(60)
        found = [message["msgId"] for message in self.sent("get")]
        self.assertEqual(found, ids[:16])

    def test_link_that_comes_up_late(self):
        self.start(Client(up=0))
        self.poll(10)
        self.client.up = 7
        self.poll(3)
        self.assertEqual([name for name, _, _ in self.client.sent], ["version", "get"])
