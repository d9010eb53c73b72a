"""
Tests of ota/agent.py: downloads that are cancelled, run out of memory, or whose URL runs out.

Source of the expected values: "Messages", "Device rules" and codes in docs/protocol.md.
"""

import sys
import unittest

import bootrecords
import images
from agents import AgentCase
from fakes import END, Reset, data, forget
from files import File, Image
from journals import read_journal

from ota.agent import OTA

_BLOCK = 4096


class StopCase(AgentCase):
    def download(self, blocks=1, of=3, **settings):
        # So many blocks of a file came, then silence.
        self.file = file = File(of * _BLOCK)
        self.ready(**settings)
        head = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % file.size
        self.net.script(head, file.parts(0, blocks * _BLOCK))
        self.command(sign=file.sign, size=file.size)
        self.poll_until(lambda: self.agent._job and self.agent._job.done == blocks * _BLOCK)

    def go_on(self, at, end=None):
        # The next connection brings the rest.
        file = self.file
        head = b"HTTP/1.0 206 X\r\nContent-Range: bytes %d-%d/%d\r\n\r\n"
        self.net.script(head % (at, file.size - 1, file.size), file.parts(at, end))

    def refuse(self, status):
        self.net.script(b"HTTP/1.0 %d X\r\n\r\n" % status, END)

    def reset(self):
        # The server goes away in the middle.
        self.net.sockets[-1].comes(OSError(104))


class CancelTests(StopCase):
    def test_is_470_and_stops_at_once(self):
        records = bootrecords.read()
        self.download()
        self.agent.cancel()
        self.poll(3)
        self.assertEqual(self.progress()[-1][2], 470)
        self.assertEqual(self.sent("progress")[-1]["msgId"], "m1")
        self.assertTrue(self.net.sockets[-1].closed)
        self.assertFalse(self.agent.is_fetching())
        self.assertEqual(bootrecords.read(), records)

    def test_nothing_comes_after_it(self):
        self.download()
        self.agent.cancel()
        self.poll(20)
        self.assertEqual(len(self.net.sockets), 1)
        self.assertEqual(len([1 for one in self.progress() if one[0] == "failed"]), 1)

    def test_twice_is_told_once(self):
        self.download()
        self.agent.cancel()
        self.agent.cancel()
        self.poll(5)
        self.assertEqual(len([1 for one in self.progress() if one[0] == "failed"]), 1)

    def test_nothing_to_cancel(self):
        self.ready().cancel()
        self.poll(2)
        self.assertEqual(self.client.sent, [])

    def test_before_the_download_begins(self):
        self.ready()
        self.command()
        self.client.check_msg()
        self.agent._handle()
        self.agent.cancel()
        self.poll(3)
        self.assertEqual(self.progress(), [("failed", 0, 470)])
        self.assertEqual(self.net.sockets, [])

    def test_same_command_is_refused_then_and_the_next_taken(self):
        self.download()
        self.agent.cancel()
        self.command(sign=self.file.sign, size=self.file.size)
        self.command("m2", sign=self.file.sign, size=self.file.size)
        self.poll(3)
        self.assertEqual(self.replies()[1:], [("m1", 415), ("m2", 200)])


class DestroyTests(StopCase):
    def test_is_471_and_stops(self):
        self.download()
        self.agent.destroy()
        self.assertEqual(self.progress()[-1][2], 471)
        self.assertTrue(self.net.sockets[-1].closed)
        self.assertFalse(self.agent.is_fetching())

    def test_twice_is_told_once(self):
        self.download()
        self.agent.destroy()
        self.agent.destroy()
        self.assertEqual(len([1 for one in self.progress() if one[0] == "failed"]), 1)

    def test_with_stops_a_download(self):
        self.download()
        with self.agent:
            pass
        self.assertEqual(self.progress()[-1][2], 471)

    def test_is_told_at_the_next_start_when_the_link_was_down(self):
        self.download()
        self.client.up = 0
        self.agent.destroy()
        self.assertFalse(471 in [one[2] for one in self.progress()])
        self.start()
        self.poll(5)
        self.assertEqual([one[2] for one in self.progress()], [471])
        self.assertEqual(self.sent("progress")[0]["msgId"], "m1")

    def test_download_has_not_ended_any_more_after_destroy(self):
        agent = self.ready(tries=0)
        self.command()
        self.poll(4)
        self.assertTrue(agent.fetch_finish())
        agent.destroy()
        self.assertFalse(agent.fetch_finish())

    def test_download_that_it_stops_has_not_ended_either(self):
        self.download()
        self.agent.destroy()
        self.assertFalse(self.agent.fetch_finish())

    def test_silent_one_that_waits(self):
        self.ready()
        self.command(policy="silent")
        self.poll(2)
        self.agent.destroy()
        self.assertEqual(self.progress(), [("failed", 0, 471)])


class MemoryTests(StopCase):
    def fail(self, *_):
        raise MemoryError

    def module(self):
        # It is forgotten when there is no room.
        from ota.download import Upgrade  # noqa: F401

        return sys.modules["ota.download"]

    def test_no_room_for_the_download_is_436(self):
        self.ready()
        module = self.module()
        fail, module.Upgrade = module.Upgrade, self.fail
        try:
            self.command()
            self.poll(4)
        finally:
            module.Upgrade = fail
        self.assertEqual(self.progress(), [("failed", 0, 436)])
        self.assertFalse(self.agent.is_fetching())

    def test_no_room_in_the_middle_is_436(self):
        self.download()
        self.agent._job.readinto = self.fail
        self.poll(3)
        self.assertEqual(self.progress()[-1][2], 436)
        self.assertTrue(self.net.sockets[-1].closed)

    def test_no_room_after_the_switch_is_no_failure(self):
        say = OTA._say

        def short(agent, status, progress):
            if status == "burning":
                raise MemoryError
            say(agent, status, progress)

        file = Image(bytes(images.application(640)))
        self.ready()
        self.serve(file.row(0) + file.row(512))
        self.command(sign=file.sign, size=640)
        OTA._say = short
        try:
            self.poll(3)
            self.assertEqual(self.progress()[-1], ("verifying", 96, None))
            with self.assertRaises(Reset):
                self.poll(2)
        finally:
            OTA._say = say
        found = read_journal()
        self.assertEqual((found.state, found.code), (3, 0))

    def test_trial_goes_on_after_it_ran_out_of_memory(self):
        bootrecords.write((1, bootrecords.PENDING_VERIFY), bootrecords.BLANK)
        self.start(self_test=lambda: None)
        self.poll(4)
        step, self.agent._also = self.agent._also, self.fail
        self.poll()
        self.assertEqual(self.sent("progress"), [])
        self.agent._also = step
        self.agent.self_test = lambda: True
        self.poll(6)
        self.assertEqual(bootrecords.states()[0], (1, bootrecords.VALID))

    def test_next_command_is_taken(self):
        self.ready()
        module = self.module()
        start, module.Upgrade = module.Upgrade, self.fail
        self.command()
        self.poll(4)
        self.assertFalse("ota.download" in sys.modules)
        module.Upgrade = start
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n")
        self.command("m2")
        self.poll(4)
        self.assertTrue(self.agent.is_fetching())


class RenewTests(StopCase):
    def run_out(self, status=403):
        # The connection goes, and the URL does not work any more.
        self.download()
        self.refuse(status)
        self.reset()
        del self.client.sent[:]
        self.poll_until(lambda: self.sent("get"))

    def told(self):
        return [one for one in self.progress() if one[0] == "failed"]

    def fresh(self, **changes):
        url = "http://host:8080/fresh.bin"
        return data(sign=self.file.sign, size=self.file.size, url=url, **changes)

    def test_platform_is_asked_once_again(self):
        for status in (401, 403, 410):
            self.run_out(status)
            self.assertEqual(self.bodies("get"), [{"firmwareVersion": ""}])
            self.assertEqual(self.told(), [])
            self.agent.destroy()
            forget()

    def test_same_sign_goes_on(self):
        self.run_out()
        del self.net.sockets[:]
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n")
        self.answer(self.fresh())
        self.poll(3)
        self.assertIn("GET /fresh.bin", self.net.sockets[0].sent.decode())
        self.assertTrue(self.agent.is_fetching())
        self.assertEqual(self.sent("progress")[-1]["msgId"], "m1")

    def test_runs_out_a_second_time_is_431(self):
        self.run_out()
        head = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % self.file.size
        self.net.script(head, self.file.parts(0, _BLOCK), OSError(104))
        self.refuse(403)
        self.answer(self.fresh())
        self.poll_until(self.told)
        self.assertEqual([code for _, _, code in self.told()], [431])
        self.assertEqual(len(self.sent("get")), 1)
        self.assertEqual(self.bodies("progress")[-1]["message"], "403")

    def test_nothing_came_before_is_431_at_once(self):
        self.ready()
        self.refuse(403)
        self.command()
        self.poll(5)
        self.assertEqual([code for _, _, code in self.told()], [431])
        self.assertEqual(self.sent("get"), [])

    def test_other_status_is_431_at_once(self):
        self.download()
        self.refuse(404)
        self.reset()
        self.poll_until(self.told)
        self.assertEqual([code for _, _, code in self.told()], [431])
        self.assertEqual(self.sent("get"), [])


class PowerCutTests(StopCase):
    def cut(self, blocks, of):
        # The device starts again in the middle of a download.
        self.download(blocks, of)
        file = self.file
        self.agent = None  # so that the heap has room for the next one
        self.start()
        self.poll(3)
        self.assertFalse(self.agent.is_fetching())
        self.assertEqual(len(self.sent("get")), 1)
        self.net.sockets[:] = []
        self.file = file

    def test_goes_on_when_the_platform_tells_it_again(self):
        self.cut(17, 18)
        self.go_on(65536)
        self.answer(data(sign=self.file.sign, size=self.file.size, policy="silent"))
        self.poll_until(lambda: self.net.sockets)
        self.assertIn("Range: bytes=65536-", self.net.sockets[0].sent.decode())
        self.assertEqual(self.sent("progress")[0]["msgId"], "m1")

    def test_retry_after_a_power_cut_reports_under_its_own_msg_id(self):
        self.ready()
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n")
        self.command("m1")
        self.poll(3)
        self.agent = None  # the power goes; the heap has room for one
        self.ready()
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n")
        self.command("m2")
        self.poll(3)
        self.assertEqual(self.sent("progress")[-1]["msgId"], "m2")

    def test_another_file_begins_anew(self):
        self.cut(17, 18)
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n")
        self.answer(data(sign="f" * 32, size=self.file.size))
        self.poll_until(lambda: self.net.sockets)
        self.assertFalse("Range" in self.net.sockets[0].sent.decode())

    def test_nothing_waits_any_more(self):
        self.cut(1, 3)
        self.answer(None)
        self.poll(5)
        self.assertEqual(self.net.sockets, [])
        self.assertEqual(self.progress(), [])


class FlashTests(StopCase):
    def test_slot_that_cannot_be_read_in_a_resume_is_452(self):
        try:
            import simulator
        except ImportError:
            raise unittest.SkipTest("no simulator: the flash cannot be made to fail")
        self.download(17, 18)
        file = self.file
        block = bytearray(_BLOCK)
        slot = bootrecords.slot(bootrecords.OTHER)
        slot.readblocks(3, block)
        simulator.fault(0, "unread")
        slot.writeblocks(3, block, 0)  # changes nothing; the next one to read it fails
        block = None
        self.agent = None  # the power goes; the heap has room for one
        self.start()
        self.poll(3)
        self.net.sockets[:] = []
        self.answer(data(sign=file.sign, size=file.size))
        self.poll_until(lambda: self.progress()[1:])
        self.assertEqual(self.progress(), [("downloading", 0, None), ("failed", 0, 452)])
        self.assertEqual(self.net.sockets, [])
        self.assertFalse(self.agent.is_fetching())
        self.poll(3)
        # It is over; the next command is taken.
        del self.client.sent[:]
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n")
        self.command("m2", sign="f" * 32)
        self.poll(3)
        self.assertEqual(self.progress(), [("downloading", 0, None)])


class WatchdogTests(StopCase):
    def test_is_fed_by_every_poll(self):
        self.ready(wdt=self.machine)
        before = self.machine.fed
        self.poll(5)
        self.assertEqual(self.machine.fed, before + 5)

    def test_is_fed_while_it_downloads(self):
        self.download(wdt=self.machine)
        before = self.machine.fed
        self.poll(5)
        self.assertEqual(self.machine.fed, before + 5)
