"""
Tests of ota/stream.py over a scripted broker: every packet that may come, late, in half, or not.

Two clients stand below it: the umqtt.simple that is installed, and one whose connect() takes a
time-out, as the newer ones have it. Source of the expected bytes: MQTT 3.1.1.
"""

import gc
import sys
from errno import ECONNRESET
from random import randrange

import umqtt
from fakes import END, Case

CONNACK = b"\x20\x02\x00\x00"
SUBACK = b"\x90\x03\x00\x01\x01"  # of packet 1, which the first subscription is
SUBSCRIBE = b"\x82\x08\x00\x01\x00\x03a/b\x01"
PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"


def puback(pid):
    return b"\x40\x02" + pid.to_bytes(2, "big")


def message(payload, qos=0, topic=b"a/b", pid=7):
    # A PUBLISH packet, of which payload may be the length alone.
    size = payload if isinstance(payload, int) else len(payload)
    rest = 2 + len(topic) + (2 if qos else 0) + size
    head = bytearray((0x30 | qos << 1,))
    while rest > 127:
        head.append(rest & 127 | 128)
        rest >>= 7
    head.append(rest)
    head += len(topic).to_bytes(2, "big") + topic + (pid.to_bytes(2, "big") if qos else b"")
    return bytes(head) + (b"" if isinstance(payload, int) else payload)


class LinkTests(Case):
    def setUp(self):
        super().setUp()
        self.module = sys.modules["ota.stream"]
        self.waits = []
        self.module.randrange = self.latest
        self.got = []
        self.link = self.module.Link("dev", "broker", 1884, "pk&dev", "secret")
        self.link.set_callback(lambda *message: self.got.append(message))
        self.link.subscribe("a/b", 1)

    def tearDown(self):
        self.module.randrange = randrange
        super().tearDown()

    def latest(self, limit):
        # Stands for randrange: notes the limit, chooses the greatest.
        self.waits.append(limit)
        return limit - 1

    def connect(self, *items):
        # A connection on which these items come after the subscription and the first ping.
        self.net.script(CONNACK, SUBACK)
        self.link.check_msg()
        self.assertTrue(self.link.up)
        self.sock = self.net.sockets[-1]
        self.link.check_msg()  # the first ping
        self.sock.sent[:] = b""
        self.sock.comes(*items)

    def test_connects_to_the_broker_that_it_was_told(self):
        self.connect()
        self.assertEqual(self.net.asked, [("broker", 1884)])
        self.assertEqual(self.sock.address, ("broker", 1884))

    def test_is_not_up_before_check_msg(self):
        self.assertEqual(self.link.up, 0)
        self.assertEqual(self.net.sockets, [])

    def test_login(self):
        self.net.script(CONNACK, SUBACK)
        self.link.check_msg()
        login = b"\x00\x03dev\x00\x06pk&dev\x00\x06secret"
        expected = b"\x10\x1f\x00\x04MQTT\x04\xc2\x00\x3c" + login
        self.assertEqual(self.net.sockets[0].sent[: len(expected)], expected)

    def test_subscribes_when_it_connects(self):
        self.net.script(CONNACK, SUBACK)
        self.link.check_msg()
        self.assertTrue(self.net.sockets[0].sent.endswith(SUBSCRIBE))

    def test_every_session_has_another_number(self):
        numbers = set()
        for _ in range(3):
            self.connect(END)
            numbers.add(self.link.up)
            self.link.check_msg()
            self.clock.advance(300000)
        self.assertEqual(len(numbers), 3)

    def test_connection_that_fails_is_down_in_time(self):
        for items in (
            [OSError(ECONNRESET)],
            [b"\x20\x02\x00\x05"],  # not authorised
            [b"\x20\x02\x00"],
            [b"\x20"],
            [b"\x90\x03\x00\x00\x00"],  # no CONNACK at all
            [b"HTTP/1.1 400 Bad Request\r\n"],
            [END],
            [OSError(ECONNRESET), 1],
            [],  # silent
            [3000, b"\x20", 3000, b"\x02\x00\x00", SUBACK],
            [CONNACK],  # the subscription is never acknowledged
            [CONNACK, b"\x90\x03\x00\x01\x80"],  # refused
            [CONNACK, b"\x90\x03\x00\x02\x01"],  # another one's acknowledgement
            [CONNACK, END],
        ):
            self.net.script(*items)
            before = self.clock.now
            self.link.check_msg()
            lasted = self.clock.since(before)
            self.assertEqual(self.link.up, 0, items)
            self.assertTrue(lasted <= 5000, (items, lasted))
            self.assertTrue(self.net.sockets[-1].closed, items)
            self.clock.advance(300000)
        self.connect()

    def test_name_that_is_not_found(self):
        self.net.unknown = OSError(-2)
        self.link.check_msg()
        self.assertEqual((self.link.up, self.net.sockets[0].closed), (0, True))
        self.net.unknown = None
        self.clock.advance(300000)
        self.connect()

    def test_back_off_doubles_up_to_the_bound(self):
        for _ in range(10):
            self.link.check_msg()
            self.clock.advance(300000)
        self.assertEqual(
            self.waits,
            [2000, 4000, 8000, 16000, 32000, 64000, 128000, 256000, 300000, 300000],
        )

    def test_back_off_bound_is_a_setting(self):
        self.link.back_off_s = 3
        for _ in range(4):
            self.link.check_msg()
            self.clock.advance(300000)
        self.assertEqual(self.waits, [2000, 3000, 3000, 3000])

    def test_no_try_before_its_time(self):
        self.link.check_msg()
        self.clock.advance(1998)
        self.link.check_msg()
        self.assertEqual(len(self.net.sockets), 1)
        self.clock.advance(1)
        self.link.check_msg()
        self.assertEqual(len(self.net.sockets), 2)

    def test_back_off_begins_anew_after_a_connection(self):
        for _ in range(4):
            self.link.check_msg()
            self.clock.advance(300000)
        self.connect(END)
        self.link.check_msg()
        self.assertEqual(self.waits[-1], 2000)

    def test_subscribes_again_after_a_reconnection(self):
        self.connect(END)
        self.link.check_msg()
        self.assertEqual(self.link.up, 0)
        self.clock.advance(2000)
        self.net.script(CONNACK, SUBACK)
        self.link.check_msg()
        self.assertTrue(self.link.up)
        self.assertTrue(self.net.sockets[-1].sent.endswith(SUBSCRIBE))

    def test_subscribe_while_up_connects_again_for_it(self):
        self.connect()
        self.link.subscribe("c", 0)
        self.assertEqual((self.link.up, self.sock.closed), (0, True))
        self.clock.advance(2000)
        self.net.script(CONNACK, SUBACK, b"\x90\x03\x00\x02\x00")
        self.link.check_msg()
        self.assertTrue(self.net.sockets[-1].sent.endswith(b"\x82\x06\x00\x02\x00\x01c\x00"))

    def test_subscribe_while_up_subscribes_all_the_next_time(self):
        self.connect()
        self.link.subscribe("c", 0)
        self.clock.advance(2000)
        self.net.script(CONNACK, SUBACK, b"\x90\x03\x00\x02\x00")
        self.link.check_msg()
        self.assertTrue(self.link.up)
        expected = SUBSCRIBE + b"\x82\x06\x00\x02\x00\x01c\x00"
        self.assertTrue(self.net.sockets[-1].sent.endswith(expected))

    def test_subscribe_to_what_is_known_does_nothing(self):
        self.connect(END)
        session = self.link.up
        self.link.subscribe("a/b", 1)
        self.assertEqual((self.link.up, self.sock.closed), (session, False))
        self.assertEqual(self.sock.sent, b"")
        self.link.check_msg()
        self.clock.advance(2000)
        self.connect()
        self.link.check_msg()
        self.assertTrue(self.link.up)

    def test_message_goes_to_the_callback(self):
        self.connect(message(b"hello"), message(b""))
        self.link.check_msg()
        self.link.check_msg()
        self.assertEqual(self.got, [(b"a/b", b"hello"), (b"a/b", b"")])
        self.assertEqual(self.sock.sent, b"")

    def test_message_at_qos_1_is_acknowledged_after_the_callback(self):
        sent = []
        self.link.set_callback(lambda *_: sent.append(bytes(self.sock.sent)))
        self.connect(message(b"hello", 1, pid=0x1234))
        self.link.check_msg()
        self.assertEqual(sent, [b""])
        self.assertEqual(self.sock.sent, b"\x40\x02\x12\x34")

    def test_message_before_the_subscription_is_acknowledged(self):
        self.net.script(CONNACK, message(b"retained", 1), SUBACK)
        self.link.check_msg()
        self.assertTrue(self.link.up)
        self.assertEqual(self.got, [(b"a/b", b"retained")])

    def test_message_in_pieces(self):
        packet = message(b"hello", 1)
        pieces = [packet[i : i + 1] for i in range(len(packet))]
        items = []
        for piece in pieces:
            items += [piece, 20]
        self.connect(*items)
        self.link.check_msg()
        self.assertEqual(self.got, [(b"a/b", b"hello")])

    def test_half_a_packet_is_the_end_of_the_connection(self):
        packet = message(b"hello", 1)
        for cut in range(1, len(packet)):
            self.connect(packet[:cut])
            before = self.clock.now
            self.link.check_msg()
            self.assertEqual(self.link.up, 0, cut)
            self.assertTrue(self.clock.since(before) <= 1000, cut)
            self.clock.advance(300000)
        self.assertEqual(self.got, [])

    def test_message_of_four_kilobytes_is_whole(self):
        size = 4096
        self.connect(message(size), iter([b"x" * 512] * (size // 512)))
        self.link.check_msg()
        self.assertEqual([len(text) for _, text in self.got], [size])

    def test_larger_message_comes_without_its_text(self):
        size = 20480
        self.connect(message(size, 1), iter([b"x" * 512] * (size // 512)), message(b"next"))
        self.link.check_msg()
        self.link.check_msg()
        self.assertEqual(self.got, [(b"a/b", b""), (b"a/b", b"next")])
        self.assertEqual(self.sock.sent, puback(7))

    def test_message_larger_than_the_heap_comes_without_its_text(self):
        self.connect()
        gc.collect()
        taken = []
        try:
            while gc.mem_free() > 9000:
                taken.append(bytearray(1000))
        except MemoryError:
            pass
        # 16,000 bytes of text behind the 5 of the topic
        self.sock.comes(b"\x30\x85\x7d\x00\x03a/b", iter([b"x" * 500] * 32))
        self.link.check_msg()
        del taken[:]
        self.assertEqual(self.got, [(b"a/b", b"")])
        self.assertTrue(self.link.up)

    def test_session_is_never_the_one_that_the_agent_begins_with(self):
        # The ticks stand at 1: 1 ms after the start, or after they wrapped.
        self.clock.now = 1
        self.link._due = 1
        self.connect()
        self.assertNotEqual(self.link.up, 1)

    def test_subscribe_while_an_acknowledgement_is_under_way(self):
        self.connect()
        pid = self.link.publish("t", b"x", False, 1)
        self.sock.comes(puback(pid))
        self.link.subscribe("c", 1)
        self.clock.advance(2000)
        self.net.script(CONNACK, SUBACK, b"\x90\x03\x00\x02\x01")
        self.link.check_msg()
        self.assertTrue(self.link.up)
        self.assertIn(b"\x82\x06\x00\x02\x00\x01c\x01", self.net.sockets[-1].sent)

    def test_qos_2_is_the_end_of_the_connection(self):
        self.connect(message(b"hello", 2))
        self.link.check_msg()
        self.assertEqual(self.link.up, 0)

    def test_nothing_to_read_takes_no_time(self):
        self.connect()
        before = self.clock.now
        self.link.check_msg()
        self.assertEqual(self.clock.since(before), 0)
        self.assertTrue(self.link.up)

    def test_publish(self):
        long = b"x" * 200
        for arguments, expected in (
            (("t", b"hi"), b"\x30\x05\x00\x01thi"),
            ((b"t", "hi", True), b"\x31\x05\x00\x01thi"),
            (("t", b""), b"\x30\x03\x00\x01t"),
            (("t", long), b"\x30\xcb\x01\x00\x01t" + long),
            (("t", b"x" * 124), b"\x30\x7f\x00\x01t" + b"x" * 124),
            (("t", b"x" * 125), b"\x30\x80\x01\x00\x01t" + b"x" * 125),
        ):
            self.connect()
            self.assertIsNone(self.link.publish(*arguments))
            self.assertEqual(self.sock.sent, expected)
            self.assertEqual(self.link.unacked, set())
            self.link.close()
            self.clock.advance(300000)

    def test_publish_at_qos_1_returns_its_packet_id(self):
        self.connect()
        self.assertEqual(self.link.publish("t", b"hi", False, 1), 2)
        self.assertEqual(self.sock.sent, b"\x32\x07\x00\x01t\x00\x02hi")
        self.assertEqual(self.link.unacked, {2})

    def test_puback_takes_it_out(self):
        self.connect(puback(3), puback(99), puback(2))
        for _ in range(3):
            self.link.publish("t", b"hi", False, 1)
        for expected in ({2, 4}, {2, 4}, {4}):
            self.link.check_msg()
            self.assertEqual(self.link.unacked, expected)
        self.assertTrue(self.link.up)

    def test_packet_ids_wrap_and_are_never_zero(self):
        self.connect()
        self.link.pid = 64999
        found = [self.link.publish("t", b"", False, 1) for _ in range(3)]
        self.assertEqual(found, [65000, 1, 2])

    def test_publish_while_down_raises(self):
        for qos in (0, 1):
            try:
                self.link.publish("t", b"hi", False, qos)
            except OSError as e:
                self.assertEqual((e.args, self.link.unacked), ((-1,), set()))
            else:
                self.fail("published")

    def test_publish_that_cannot_be_written_raises_and_is_down(self):
        for fault, full in ((OSError(ECONNRESET), False), (None, True)):
            self.connect()
            self.sock.fault = fault
            self.sock.full = full
            with self.assertRaises(OSError):
                self.link.publish("t", b"hi", False, 1)
            self.assertEqual((self.link.up, self.link.unacked), (0, set()))
            self.clock.advance(300000)

    def test_puback_that_never_comes_is_the_end_of_the_connection(self):
        self.connect()
        self.link.publish("t", b"hi", False, 1)
        self.clock.advance(9999)
        self.link.check_msg()
        self.assertTrue(self.link.up)
        self.clock.advance(1)
        self.link.check_msg()
        self.assertEqual((self.link.up, self.link.unacked), (0, set()))
        self.assertTrue(self.sock.closed)

    def test_pings_twice_in_each_keepalive(self):
        self.connect()
        for _ in range(60):
            self.clock.advance(1000)
            self.link.check_msg()
        self.assertEqual(self.sock.sent, PINGREQ * 2)

    def test_keepalive_that_was_given(self):
        self.link.keepalive = 10
        self.connect()
        for _ in range(10):
            self.clock.advance(1000)
            self.link.check_msg()
        self.assertEqual(self.sock.sent, PINGREQ * 2)

    def test_answered_pings_keep_it_up(self):
        self.connect(*[45000, PINGRESP] * 10)
        for _ in range(400):
            self.clock.advance(1000)
            self.link.check_msg()
        self.assertTrue(self.link.up)
        self.assertEqual(len(self.net.sockets), 1)

    def test_silence_is_the_end_of_the_connection(self):
        self.connect()
        for _ in range(89):
            self.clock.advance(1000)
            self.link.check_msg()
        self.assertTrue(self.link.up)
        self.clock.advance(1000)
        self.link.check_msg()
        self.assertEqual(self.link.up, 0)

    def test_ping_that_cannot_be_written_is_the_end_of_the_connection(self):
        self.connect()
        self.sock.fault = OSError(ECONNRESET)
        self.clock.advance(31000)
        self.link.check_msg()
        self.assertEqual(self.link.up, 0)

    def test_what_runs_out_of_memory_is_the_end_of_the_connection(self):
        def fail(*_):
            raise MemoryError

        for name in ("wait_msg", "cb", "ping"):
            self.connect(message(b"hello"))
            kept = getattr(self.link, name)
            setattr(self.link, name, fail)
            self.clock.advance(31000)  # a ping is due
            self.link.check_msg()
            self.link.check_msg()
            self.assertEqual((self.link.up, self.sock.closed), (0, True), name)
            setattr(self.link, name, kept)
            self.clock.advance(300000)
        self.connect(message(b"back"))
        self.link.check_msg()
        self.assertEqual(self.got[-1], (b"a/b", b"back"))

    def test_connection_that_runs_out_of_memory_is_tried_again(self):
        def fail(*_):
            raise MemoryError

        connect, self.link.connect = self.link.connect, fail
        self.link.check_msg()
        self.assertEqual(self.link.up, 0)
        self.link.connect = connect
        self.clock.advance(2000)
        self.connect()

    def test_read_error_is_the_end_of_the_connection(self):
        for item in (OSError(ECONNRESET), END):
            self.connect(item)
            self.link.check_msg()
            self.assertEqual(self.link.up, 0)
            self.clock.advance(300000)


class Newer:
    """Stands for a module umqtt.simple whose connect() takes a time-out."""

    def __init__(self, simple):
        self.socket = None
        self.MQTTException = simple.MQTTException

        class MQTTClient(simple.MQTTClient):
            def connect(client, clean_session=True, timeout=None):
                client.sock = self.socket.socket()
                client.sock.settimeout(timeout)
                address = self.socket.getaddrinfo(client.server, client.port)[0][-1]
                client.sock.connect(address)
                client.sock.write(b"\x10\x1f\x00\x04MQTT\x04\xc2\x00\x3c")
                for text in (client.client_id, client.user, client.pswd):
                    client._send_str(text)
                reply = client.sock.read(4)
                if reply != CONNACK:
                    raise self.MQTTException(reply[3])
                return 0

        self.MQTTClient = MQTTClient


class NewerLinkTests(LinkTests):
    def setUp(self):
        self._stream = sys.modules.pop("ota.stream")
        self._simple = umqtt.simple
        umqtt.simple = sys.modules["umqtt.simple"] = Newer(self._simple)
        __import__("ota.stream")
        super().setUp()

    def tearDown(self):
        super().tearDown()
        umqtt.simple = sys.modules["umqtt.simple"] = self._simple
        sys.modules["ota.stream"] = self._stream
