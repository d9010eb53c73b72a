"""
The scripted broker of the fault campaign: each way to behave, and to misbehave, once. A client of
bytes says exactly what comes; paho, and the device's own Link under MicroPython, judge whether it
is MQTT. Source of the bytes: MQTT 3.1.1.
"""

import asyncio
import os
import socket
import threading

import paho.mqtt.client as mqtt
import pytest

from tools.faults.broker import Broker
from tools.mpytest import HEAP_OF_SOURCES, PORT
from tools.toolchain import LIB, ROOT, micropython

PATIENCE_S = 20  # no figure, only an end for what never comes
CONNECT = b"\x10\x16\0\4MQTT\4\xc2\0\x3c\0\2d1\0\1u\0\3pwd"
CONNACK = b"\x20\2\0\0"
SUBSCRIBE = b"\x82\x08\0\1\0\3a/b\1"
SUBACK = b"\x90\3\0\1\1"
PUBLISH = b"\x32\x09\0\3x/y\0\7hi"
PUBACK = b"\x40\2\0\7"
MESSAGE = b"\x32\x09\0\3a/b\0\1hi"  # the first one to a subscriber
TAKEN = b"\x40\2\0\1"  # its PUBACK
PINGREQ, PINGRESP = b"\xc0\0", b"\xd0\0"

# The device's end: says what it gets, ends after the second message.
DEVICE = """
import sys
from time import sleep_ms
from ota.stream import Link
link = Link("d1", "127.0.0.1", %d, "u", "pwd", 60)
left = [1, 2]
def take(topic, payload):
    left.pop()
    print(topic.decode(), payload.decode())
link.set_callback(take)
link.subscribe(b"a/b", 1)
said = False
while left or link.unacked or not said:
    link.check_msg()
    if link.up and not said:
        said = link.publish(b"x/y", b"hi", qos=1)
    sleep_ms(5)
"""


class Bench:
    """A broker, what it told, and clients of bytes."""

    def __init__(self):
        self.messages, self.sessions = [], []
        self.broker = Broker(lambda *message: self.messages.append(message), self.sessions.append)
        self._writers = []

    async def client(self, *packets):
        """Returns (reader, writer) of a new connection that has sent the packets."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.broker.port)
        self._writers.append(writer)
        writer.write(b"".join(packets))
        return reader, writer

    async def session(self):
        """A client that is connected and has subscribed to a/b."""
        reader, writer = await self.client(CONNECT, SUBSCRIBE)
        assert await reader.readexactly(9) == CONNACK + SUBACK
        return reader, writer

    async def close(self):
        for writer in self._writers:
            writer.close()
        await self.broker.stop()


def over_broker(test):
    """Makes a test of a coroutine test(bench), or test(bench, row): a started broker, an end."""

    async def run(*row):
        bench = Bench()
        await bench.broker.start()
        try:
            await asyncio.wait_for(test(bench, *row), PATIENCE_S)
        finally:
            await bench.close()

    def without_row():
        asyncio.run(run())

    def with_row(row):
        asyncio.run(run(row))

    return without_row if test.__code__.co_argcount == 1 else with_row


async def before_ping(reader, writer):
    """All that comes until a ping that is sent now is answered."""
    writer.write(PINGREQ)
    return (await reader.readuntil(PINGRESP))[:-2]


async def is_reset(reader):
    """Whatever comes before it."""
    with pytest.raises(ConnectionResetError):
        while await reader.read(65536):
            pass


async def until(condition):
    """Looks again and again; the test's deadline ends it."""
    while not condition():
        await asyncio.sleep(0.01)


@over_broker
async def test_login_is_noted_and_accepted(bench):
    reader, _ = await bench.client(CONNECT)
    assert await reader.readexactly(4) == CONNACK
    assert bench.broker.logins == [
        {"client_id": "d1", "user": "u", "password": "pwd", "keepalive": 60, "clean": True}
    ]


@over_broker
async def test_packets_that_come_byte_by_byte(bench):
    reader, writer = await bench.client()
    for byte in CONNECT + SUBSCRIBE + PUBLISH:
        writer.write(bytes((byte,)))
        await writer.drain()
        await asyncio.sleep(0)
    assert await reader.readexactly(13) == CONNACK + SUBACK + PUBACK


@over_broker
async def test_message_is_told_before_its_puback(bench):
    def answer(topic, payload):
        bench.broker.publish("a/b", payload)

    bench.broker.on_message = answer
    reader, writer = await bench.session()
    writer.write(PUBLISH)
    assert await reader.readexactly(15) == MESSAGE + PUBACK
    assert bench.broker.received == [("x/y", b"hi", 1, False)]


@over_broker
async def test_messages_of_the_device_with_dup_and_at_qos_0(bench):
    again = b"\x3a" + PUBLISH[1:]
    reader, writer = await bench.client(CONNECT, PUBLISH, again, b"\x30\6\0\3x/y-")
    assert await before_ping(reader, writer) == CONNACK + PUBACK + PUBACK
    assert bench.broker.received == [
        ("x/y", b"hi", 1, False),
        ("x/y", b"hi", 1, True),
        ("x/y", b"-", 0, False),
    ]
    assert bench.messages == [("x/y", b"hi"), ("x/y", b"hi"), ("x/y", b"-")]
    assert bench.broker.pings == 1


@over_broker
async def test_publish_waits_for_the_puback(bench):
    reader, writer = await bench.session()
    assert bench.broker.publish("a/b", b"hi") == 1
    assert await reader.readexactly(11) == MESSAGE
    assert bench.broker.unacked == 1
    writer.write(TAKEN)
    assert await before_ping(reader, writer) == b""
    assert bench.broker.unacked == 0


@over_broker
async def test_publish_at_no_more_than_the_granted_qos(bench):
    reader, writer = await bench.client(CONNECT, SUBSCRIBE[:-1] + b"\0")
    assert await reader.readexactly(9) == CONNACK + SUBACK[:-1] + b"\0"
    bench.broker.publish("a/b", b"hi", qos=1)
    assert await before_ping(reader, writer) == b"\x30\7\0\3a/bhi"
    assert bench.broker.unacked == 0


@over_broker
async def test_publish_for_nobody_is_dropped(bench):
    assert bench.broker.publish("a/b", b"early") == 0
    reader, writer = await bench.session()
    assert bench.broker.publish("a/c", b"other") == 0
    assert await before_ping(reader, writer) == b""


@over_broker
async def test_publish_with_dup_and_a_length_that_lies(bench):
    reader, writer = await bench.session()
    bench.broker.publish("a/b", b"hi", dup=True, size_lie=300)
    assert await before_ping(reader, writer) == b"\x3a\xac\x02" + MESSAGE[2:]  # 300 = 2 * 128 + 44


@over_broker
async def test_long_message_has_the_right_length(bench):
    reader, writer = await bench.session()
    bench.broker.publish("a/b", bytes(16384), qos=0)  # 16389 = 0x4005: a length of three bytes
    assert await before_ping(reader, writer) == b"\x30\x85\x80\x01\0\3a/b" + bytes(16384)


@over_broker
async def test_retained_message_comes_after_each_suback_until_cleared(bench):
    reader, writer = await bench.session()
    bench.broker.publish("a/b", b"hi", retain=True)
    assert await before_ping(reader, writer) == MESSAGE  # the flag is for later ones: 3.3.1.3
    reader, writer = await bench.client(CONNECT, SUBSCRIBE)
    assert await before_ping(reader, writer) == CONNACK + SUBACK + b"\x33" + MESSAGE[1:]
    bench.broker.publish("a/b", b"", retain=True)
    reader, writer = await bench.session()
    assert await before_ping(reader, writer) == b""


@over_broker
async def test_packet_ids_wrap_past_0(bench):
    reader, _ = await bench.session()
    for _ in range(65536):
        bench.broker.publish("a/b", b"")
    packets = await reader.readexactly(65536 * 9)
    assert [packets[at * 9 + 7 : at * 9 + 9] for at in (0, 65534, 65535)] == [
        b"\0\1",
        b"\xff\xff",
        b"\0\1",
    ]


@over_broker
async def test_session_is_told_once_and_its_end(bench):
    reader, writer = await bench.client(CONNECT)
    assert await before_ping(reader, writer) == CONNACK
    assert bench.sessions == []
    writer.write(SUBSCRIBE + SUBSCRIBE.replace(b"a/b", b"a/c"))
    assert await before_ping(reader, writer) == SUBACK + SUBACK
    assert bench.sessions == [True]
    writer.write(b"\xe0\0")  # DISCONNECT
    assert await reader.read() == b""
    assert bench.sessions == [True, False]
    assert bench.broker.errors == []


@over_broker
async def test_second_login_takes_the_first_one_over(bench):
    first, _ = await bench.session()
    await bench.session()
    assert await first.read() == b""
    assert bench.sessions == [True, False, True]
    other, writer = await bench.client(CONNECT.replace(b"d1", b"d2"))
    assert await other.readexactly(4) == CONNACK
    assert bench.sessions == [True, False, True]


@over_broker
async def test_drop_resets_and_takeover_ends(bench):
    reader, _ = await bench.session()
    bench.broker.takeover()
    assert await reader.read() == b""
    reader, _ = await bench.session()
    bench.broker.publish("a/b", b"hi")
    bench.broker.drop()
    assert bench.broker.unacked == 0  # it owes nothing any more
    assert bench.sessions == [True, False] * 2
    assert bench.broker.publish("a/b", b"late") == 0
    await is_reset(reader)
    await bench.session()


@over_broker
async def test_drop_from_within_on_message(bench):
    bench.broker.on_message = lambda *_: bench.broker.drop()
    reader, writer = await bench.session()
    writer.write(PUBLISH + PUBLISH)
    await is_reset(reader)
    assert len(bench.broker.received) == 1


@over_broker
async def test_stop_resets_refuses_and_the_port_comes_back(bench):
    reader, _ = await bench.session()
    port = bench.broker.port
    await bench.broker.stop()
    await is_reset(reader)
    with pytest.raises(ConnectionRefusedError):
        await bench.client()
    assert await bench.broker.start() == port
    await bench.session()


@over_broker
async def test_stop_resets_what_is_just_coming_in(bench):
    for rounds in range(8):  # of the loop: from TCP's own accept to a connection that stands
        with socket.create_connection(("127.0.0.1", bench.broker.port), PATIENCE_S) as sock:
            for _ in range(rounds):
                await asyncio.sleep(0)
            await bench.broker.stop()
            assert not bench.broker.connections
            with pytest.raises(ConnectionResetError):
                await asyncio.to_thread(sock.recv, 1)
        await bench.broker.start()


@over_broker
async def test_refused_login(bench):
    standing, writer = await bench.session()
    bench.broker.refuse_connect = 5
    reader, _ = await bench.client(CONNECT)
    assert await reader.read() == b"\x20\2\0\5"
    assert len(bench.broker.logins) == 2
    assert await before_ping(standing, writer) == b""  # was not taken over


@over_broker
async def test_silent_broker_reads_and_forgets(bench):
    standing, to_standing = await bench.session()
    bench.broker.silent = True
    reader, writer = await bench.client(CONNECT.replace(b"d1", b"d2"), SUBSCRIBE)
    to_standing.write(PINGREQ + PUBLISH[:5])
    bench.broker.publish("a/b", b"hi")
    await bench.client()
    await until(lambda: len(bench.broker.connections) == 3)
    await asyncio.sleep(0.1)  # what it must not say may come late
    bench.broker.silent = False
    to_standing.write(PUBLISH[5:])  # half of it in the silence
    assert await before_ping(standing, to_standing) == PUBACK
    # Who logged in during the silence is never answered, and nothing of it is an error.
    writer.write(PINGREQ)
    writer.write_eof()
    assert await reader.read() == b""
    assert len(bench.broker.logins) == 1
    assert bench.broker.pings == 1
    assert bench.broker.errors == []


@over_broker
async def test_refused_subscription(bench):
    bench.broker.refuse_subscribe = True
    reader, writer = await bench.client(CONNECT, SUBSCRIBE)
    assert await reader.readexactly(9) == CONNACK + SUBACK[:-1] + b"\x80"
    assert bench.broker.publish("a/b", b"hi") == 0
    assert bench.sessions == []


@over_broker
async def test_lost_puback(bench):
    bench.broker.lose_puback = 1
    reader, writer = await bench.client(CONNECT, PUBLISH, PUBLISH.replace(b"\7", b"\x08"))
    assert await before_ping(reader, writer) == CONNACK + PUBACK.replace(b"\7", b"\x08")
    assert len(bench.messages) == 2
    assert bench.broker.lose_puback == 0


@over_broker
async def test_lost_suback(bench):
    bench.broker.lose_suback = 1
    reader, writer = await bench.client(CONNECT, SUBSCRIBE)
    assert await before_ping(reader, writer) == CONNACK
    assert bench.sessions == []
    bench.broker.publish("a/b", b"hi")  # it stands for all that
    assert await before_ping(reader, writer) == MESSAGE
    await bench.session()
    assert bench.sessions == [True]


@over_broker
async def test_redelivery_has_the_same_packet_id_and_two_pubacks(bench):
    bench.broker.redeliver = True
    reader, writer = await bench.session()
    bench.broker.publish("a/b", b"hi")
    assert await reader.readexactly(22) == MESSAGE + b"\x3a" + MESSAGE[1:]
    bench.broker.publish("a/b", b"hi", qos=0)
    writer.write(TAKEN)
    assert await before_ping(reader, writer) == b"\x30\7\0\3a/bhi"
    assert bench.broker.unacked == 1
    writer.write(TAKEN)
    await before_ping(reader, writer)
    assert (bench.broker.unacked, bench.broker.errors) == (0, [])


@over_broker
async def test_garbage_in_the_place_of_connack(bench):
    bench.broker.garbage = b"HTTP/1.1 400"
    reader, writer = await bench.client(CONNECT)
    assert await before_ping(reader, writer) == b"HTTP/1.1 400"


@over_broker
async def test_raw_bytes_go_to_every_connection(bench):
    readers = [(await bench.client())[0], (await bench.session())[0]]
    await until(lambda: len(bench.broker.connections) == 2)
    bench.broker.silent = True
    bench.broker.send_raw(b"\xff\0raw")
    for reader in readers:
        assert await reader.readexactly(5) == b"\xff\0raw"


@pytest.mark.parametrize(
    "row",
    [
        (b"GET / HTTP/1.1\r\n" + bytes(80), "CONNECT comes first"),
        (SUBSCRIBE, "CONNECT comes first"),
        (CONNECT + CONNECT, "CONNECT comes first, and once"),
        (CONNECT.replace(b"MQTT\4", b"MQTT\3"), "another protocol"),
        (CONNECT.replace(b"\xc2", b"\xc3"), "flags 0xc3"),  # the reserved bit
        (CONNECT.replace(b"\xc2", b"\xc6"), "flags 0xc6"),  # a will
        (CONNECT.replace(b"\xc2", b"\x42"), "flags 0x42"),  # a password without a user name
        (b"\x10\x0c\0\4MQTT\4\2\0\x3c\0\0", "without a client id"),
        (CONNECT.replace(b"d1", b"\xff1"), "not UTF-8"),
        (CONNECT.replace(b"d1", b"\x001"), "NUL"),
        (CONNECT.replace(b"\1u", b"\x09u"), "3 bytes early"),
        (b"\x10\x17" + CONNECT[2:] + b"-", "1 bytes too many"),
        (CONNECT + b"\x34" + PUBLISH[1:], "PUBLISH flags 0x4"),  # QoS 2
        (CONNECT + b"\x38" + PUBLISH[1:], "PUBLISH flags 0x8"),  # DUP at QoS 0
        (CONNECT + PUBLISH.replace(b"\7", b"\0"), "packet id 0"),
        (CONNECT + PUBLISH.replace(b"x/y", b"x/#"), "topic 'x/#'"),
        (CONNECT + b"\x32\x04\0\0\0\7", "topic ''"),
        (CONNECT + SUBSCRIBE[:-1] + b"\2", "QoS 2"),
        (CONNECT + b"\x80" + SUBSCRIBE[1:], "first byte 0x80"),
        (CONNECT + b"\x82\2\0\1", "2 bytes early"),
        (CONNECT + PUBACK, "PUBACK of packet 7"),
        (CONNECT + b"\xc0\1-", "1 bytes too many"),
        (CONNECT + b"\xe0\1-", "1 bytes too many"),
        (CONNECT + b"\x62\2\0\7", "first byte 0x62"),  # PUBREL
        (CONNECT + b"\x30\xff\xff\xff\xff\1", "more than 4 bytes"),
        (CONNECT + b"\x30\xff\xff\x3f", "packet of 1048579 bytes"),  # 2**20 - 1, and its head
    ],
    ids=lambda row: row[1],
)
@over_broker
async def test_malformed_packet_is_noted_and_ends_the_connection(bench, row):
    data, words = row
    reader, _ = await bench.client(data)
    assert await reader.read() in {b"", CONNACK}
    assert len(bench.broker.errors) == 1
    assert words in bench.broker.errors[0]
    assert bench.broker.received == []


@over_broker
async def test_paho_agrees(bench):
    loop, inbox = asyncio.get_running_loop(), asyncio.Queue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="paho")
    client.on_connect = lambda *_: client.subscribe("a/b", 1)
    client.on_message = lambda client, data, message: loop.call_soon_threadsafe(
        inbox.put_nowait, (message.topic, message.payload, message.qos, message.retain)
    )
    published = threading.Event()
    client.on_publish = lambda *_: published.set()
    bench.broker.publish("a/b", b"kept", retain=True)
    bench.broker.on_session = lambda up: up and bench.broker.publish("a/b", bytes(300), qos=0)
    try:
        await asyncio.to_thread(client.connect, "127.0.0.1", bench.broker.port)
        client.loop_start()
        assert await inbox.get() == ("a/b", b"kept", 1, True)
        assert await inbox.get() == ("a/b", bytes(300), 0, False)
        client.publish("x/y", b"hi", 1)
        assert await asyncio.to_thread(published.wait, PATIENCE_S)
    finally:
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)
    await until(lambda: not bench.broker.connections)
    assert (bench.broker.unacked, bench.broker.errors) == (0, [])


@over_broker
async def test_link_of_the_device_agrees(bench):
    bench.broker.redeliver = True
    bench.broker.on_session = lambda up: up and bench.broker.publish("a/b", b"hi")
    device = await asyncio.create_subprocess_exec(
        micropython(),
        "-X",
        f"heapsize={HEAP_OF_SOURCES}",
        "-c",
        DEVICE % bench.broker.port,
        env={**os.environ, "MICROPYPATH": f"{PORT}:{LIB}:{ROOT}:.frozen"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await device.communicate()
    finally:
        if device.returncode is None:
            device.kill()
            await device.wait()
    assert output.split() == [b"a/b", b"hi"] * 2
    assert bench.broker.logins == [
        {"client_id": "d1", "user": "u", "password": "pwd", "keepalive": 60, "clean": True}
    ]
    assert bench.broker.received == [("x/y", b"hi", 1, False)]
    assert bench.broker.errors == []
