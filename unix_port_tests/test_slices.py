"""
Tests of one poll() with all below it: agent, link and download over scripted connections, none of
which may hold the device.

Source of the expected values: docs/limits.md (1 s in a download, 5 s when something connects,
replies within 10 s).
"""

import json

from agents import PREFIX, AgentCase
from fakes import END, data
from files import File

from ota.stream import Link

CONNACK = b"\x20\x02\x00\x00"
SUBACKS = b"\x90\x03\x00\x01\x01", b"\x90\x03\x00\x02\x01"
HEAD = b"HTTP/1.0 200 OK\r\nContent-Length: 20480\r\n\r\n"


def publish(name, message):
    """A PUBLISH packet at QoS 1 to the device."""
    topic = (PREFIX + name).encode()
    rest = len(topic).to_bytes(2, "big") + topic + b"\x00\x07" + json.dumps(message).encode()
    return bytes((0x32, len(rest) & 127 | 128, len(rest) >> 7)) + rest


def dripping(parts, gap):
    """Byte after byte, so many ms apart."""
    for part in parts:
        for byte in part:
            yield gap
            yield bytes((byte,))


class SliceTests(AgentCase):
    def setUp(self):
        super().setUp()
        self.longest = 0

    def begin(self, *mqtt):
        # Connects; then these items come from the broker.
        self.start(Link("dev", "broker"))
        self.net.script(CONNACK, *SUBACKS)
        self.poll()
        self.broker = self.net.sockets[0]
        self.broker.comes(*mqtt)
        self.acknowledge()

    def acknowledge(self):
        # PUBACK for all that is under way.
        while self.client.unacked:
            for pid in list(self.client.unacked):
                self.broker.comes(b"\x40\x02" + pid.to_bytes(2, "big"))
            self.poll(2)

    def command(self, size=20480):
        self.file = file = File(size)
        return publish("upgrade", {"msgId": "m1", "data": data(sign=file.sign, size=size)})

    def run_for(self, seconds):
        """Polls, notes how long the longest call took. Returns it: ms."""
        longest = 0
        end = self.clock.now
        while self.clock.since(end) < seconds * 1000:
            before = self.clock.now
            self.agent.poll()
            longest = max(longest, self.clock.since(before))
            self.clock.advance(20)
        return longest

    def replied(self):
        return b"upgrade_reply" in self.broker.sent

    def test_idle_one_takes_no_time(self):
        self.begin()
        self.assertEqual(self.run_for(20), 0)

    def test_command_is_answered_at_once(self):
        self.begin()
        self.broker.comes(self.command())
        self.poll()
        self.assertTrue(self.replied())
        # The broker has its acknowledgement as well.
        self.assertIn(b"\x40\x02\x00\x07", self.broker.sent)

    def test_silent_broker(self):
        self.start(Link("dev", "broker"))
        self.net.script()
        self.assertTrue(self.run_for(6) <= 5000)

    def test_broker_that_drips(self):
        self.start(Link("dev", "broker"))
        self.net.script(dripping([CONNACK, SUBACKS[0]], 1000))
        self.assertTrue(self.run_for(20) <= 5000)

    def test_half_a_packet(self):
        self.begin()
        self.broker.comes(self.command()[:50])
        self.assertTrue(self.run_for(3) <= 1000)

    def test_packet_that_drips(self):
        self.begin()
        self.broker.comes(dripping([self.command()], 100))
        self.assertTrue(self.run_for(3) <= 1000)

    def test_silent_server(self):
        self.begin(self.command())
        self.net.script()
        self.assertTrue(self.run_for(6) <= 5000)
        self.assertTrue(self.replied())

    def test_server_that_drips_its_head(self):
        self.begin(self.command())
        self.net.script(dripping([HEAD], 1000))
        self.assertTrue(self.run_for(8) <= 5000)

    def test_server_that_drips_its_body(self):
        self.begin(self.command())
        self.net.script(HEAD, dripping(self.file.parts(0), 1000))
        self.assertTrue(self.run_for(60) <= 1000)

    def test_server_that_stops(self):
        self.begin(self.command())
        self.net.script(HEAD, self.file.parts(0, 5000))
        self.assertTrue(self.run_for(25) <= 1000)

    def test_half_a_packet_while_it_downloads(self):
        self.begin(self.command())
        self.net.script(HEAD, dripping(self.file.parts(0), 300))
        self.run_for(2)
        self.broker.comes(b"\x32\x7f\x00")
        self.assertTrue(self.run_for(1) <= 1000)
        self.assertTrue(self.broker.closed)

    def test_silent_broker_and_silent_server_in_one_poll(self):
        self.start(Link("dev", "broker"))
        self.net.script(CONNACK, *SUBACKS)
        self.poll()
        command = {"msgId": "m1", "data": data(size=20480)}
        self.net.sockets[0].comes(publish("upgrade", command), END)
        self.poll(2)  # the server refuses, the broker goes
        self.clock.advance(3000)  # both are due
        self.net.script()
        self.net.script()
        for _ in range(4):
            before = self.clock.now
            self.poll()
            self.assertTrue(self.clock.since(before) <= 5000)
        self.assertTrue(len(self.net.sockets) >= 4)

    def test_reply_while_a_server_is_silent(self):
        self.begin(self.command())
        self.run_for(1)
        other = {"msgId": "m2", "data": data("3.0", size=20480)}
        self.acknowledge()
        self.broker.sent[:] = b""
        self.net.script()
        self.broker.comes(publish("upgrade", other))
        before = self.clock.now
        self.poll_until(self.replied)
        self.assertTrue(self.clock.since(before) <= 10000)
        self.assertIn(b"413", self.broker.sent)
