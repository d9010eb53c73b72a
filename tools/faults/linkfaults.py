"""
What befalls the way between device and broker, and when: faults, junk, and the moments at which
they come.

A fault is a coroutine function of the World; it runs in the event loop. Source of the packets:
MQTT 3.1.1, 2.2 (fixed header), 3 (packets).
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable

from tools.platform import wire

from .check import need
from .record import Heard
from .scene import NAME, NEW, PRODUCT
from .web import Exchange
from .world import World, call, command

Fault = Callable[[World], Awaitable[None]]

COMMANDS = wire.topic((PRODUCT, NAME), wire.UPGRADE)
MESSAGE_MAX = 16384  # bytes, of one message: docs/limits.md
NEVER = "9.9.9"  # version of commands that no device takes

MOMENTS = ("command", "download", "restart", "trial", "outcome")  # see Moment

_DOWN_S = 0.5
_SILENT_S = 1.5
_HALF_S = 0.3


class Moment:
    """
    Lets a fault come once, when the device is so far: "command" (it is out), "download" (half of
    the file is there), "restart" (the last word before it), "trial" (the new image tells its
    version), "outcome". arm() before the upgrade begins; for "command" call now().
    """

    def __init__(self, world: World, name: str, fault: Fault):
        self._world, self._name, self._fault = world, name, fault
        self._task: asyncio.Task | None = None

    def arm(self) -> None:
        if self._name == "download":
            self._world.web.behave = self._serve
        elif self._name != "command":
            listen(self._world, self._heard)

    def now(self) -> None:
        if self._name == "command":
            self._world.do(self._begin)

    def passed(self) -> None:
        """Raises Failed: it never came. Raises what the fault raised."""
        need(self._task, f"no {self._name}: the fault did not come", self._world)
        call(self._join())

    async def _join(self) -> None:
        await self._task

    def _begin(self) -> None:
        if not self._task:
            self._task = asyncio.ensure_future(self._fault(self._world))

    def _heard(self, heard: Heard) -> None:
        status = heard.data.get("status")
        if {
            "restart": status == "restarting",
            "trial": heard.name == wire.VERSION and heard.data["firmwareVersion"] == NEW,
            "outcome": status in ("succeeded", "failed"),
        }[self._name]:
            self._begin()

    async def _serve(self, exchange: Exchange) -> None:
        if self._task:
            await exchange.good()
            return
        half = len(exchange.content) // 2
        await exchange.send(exchange.good_head() + exchange.content[:half])
        self._begin()
        await exchange.pause(_HALF_S)  # the device is in the middle of it
        await exchange.send(exchange.content[half:])


def listen(world: World, act: Callable[[Heard], None]) -> None:
    """Calls act in the loop with each message of the device, before its PUBACK goes out."""
    before = world.broker.on_message

    def heard(topic: str, payload: bytes) -> None:
        count = len(world.record.heard)
        before(topic, payload)
        for message in world.record.heard[count:]:
            act(message)

    world.broker.on_message = heard


# Faults


async def restart(world: World) -> None:
    await world.broker.stop()
    await asyncio.sleep(_DOWN_S)
    await world.broker.start()


async def stop(world: World) -> None:
    await world.broker.stop()


async def drop(world: World) -> None:
    world.broker.drop()


async def takeover(world: World) -> None:
    world.broker.takeover()


async def takeovers(world: World) -> None:
    """Three, each after the device may have come back."""
    for _ in range(3):
        world.broker.takeover()
        await asyncio.sleep(_SILENT_S)


async def silence(world: World) -> None:
    """
    What the device says gets lost, and then the connection. (It would wait 10 s for a PUBACK, and
    the platform no longer for the reply.)
    """
    world.broker.silent = True
    await asyncio.sleep(_SILENT_S)
    world.broker.silent = False
    world.broker.drop()


def setting(name: str, value: object) -> Fault:
    """An attribute of the scripted broker is set, and stays so."""

    async def fault(world: World) -> None:
        setattr(world.broker, name, value)

    return fault


def raw(data: bytes) -> Fault:
    """These bytes to the device."""

    async def fault(world: World) -> None:
        world.broker.send_raw(data)

    return fault


def long(size: int, qos: int) -> Fault:
    """A command that would be good, were it not of so many bytes."""

    async def fault(world: World) -> None:
        _publish_to_it(world, _unwanted(world).ljust(size), qos)

    return fault


def lie(size: int, qos: int, relative: bool = False) -> Fault:
    """
    A command whose packet claims another remaining length. relative: size is the difference to the
    true one.
    """

    async def fault(world: World) -> None:
        payload = _unwanted(world)
        true = 2 + len(COMMANDS) + 2 * (qos > 0) + len(payload)
        claimed = true + size if relative else size
        _publish_to_it(world, payload, qos, size_lie=claimed)

    return fault


def _publish_to_it(world: World, payload: bytes, qos: int, **more) -> None:
    # None: mosquitto does not say for how many sessions it was.
    need(world.broker.publish(COMMANDS, payload, qos, **more) != 0, "nobody listened", world)


def _unwanted(world: World) -> bytes:
    data = {"firmwareVersion": NEVER, "url": world.url_of(NEVER), "sign": "0" * 32}
    data |= {"signMethod": "Md5", "policy": "standard", "size": 70000}
    return command("unwanted", data).encode()


def _publish(first: int, payload: bytes) -> bytes:
    rest = struct.pack(">H", len(COMMANDS)) + COMMANDS.encode() + payload
    assert len(rest) < 128
    return bytes((first, len(rest))) + rest


# Packets that a broker has no reason to send. None says QoS 1: a PUBACK of the device would be an
# answer to what the broker does not know.
JUNK: dict[str, Fault] = {
    "puback": raw(b"\x40\x02\xff\xff"),
    "puback-long": raw(b"\x40\x05\xff\xff\0\0\0"),
    "puback-flags": raw(b"\x4f\x02\xff\xff"),
    "suback": raw(b"\x90\x03\xff\xff\x01"),
    "suback-refused": raw(b"\x90\x03\xff\xff\x80"),
    "unsuback": raw(b"\xb0\x02\xff\xff"),
    "pingresp": raw(b"\xd0\0"),
    "pingresp-long": raw(b"\xd0\x01\0"),
    "pingresps": raw(b"\xd0\0" * 500),
    "connack": raw(b"\x20\x02\0\0"),
    "connack-refused": raw(b"\x20\x02\0\x05"),
    "connect": raw(b"\x10\x0d\0\4MQTT\4\2\0\x3c\0\1x"),
    "subscribe": raw(b"\x82\x06\0\1\0\1x\1"),
    "pubrec-pubrel-pubcomp": raw(b"\x50\x02\0\1\x62\x02\0\1\x70\x02\0\1"),
    "disconnect": raw(b"\xe0\0"),
    "types-0-15": raw(b"\0\0\xf0\0"),
    "zeros": raw(bytes(300)),
    "http": raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "qos-2": raw(_publish(0x34, b"\0\x07{}")),
    "qos-3": raw(_publish(0x36, b"\0\x07{}")),
    "qos-0-dup": raw(_publish(0x38, b"{}")),
    "no-topic": raw(b"\x30\x02\0\0"),
    "no-body": raw(b"\x30\0"),
    "topic-not-utf-8": raw(b"\x30\x05\0\x02\xff\xfe{"),
    "topic-longer-than-packet": raw(b"\x30\x04\xff\xff{}"),
    "half-length": raw(b"\x30\xff"),
    "half-topic": raw(_publish(0x30, b"{}")[:20]),
    "half-payload": raw(_publish(0x30, b"{}" * 9)[:-8]),
    "length-of-5-bytes": raw(b"\x30\x80\x80\x80\x80\x01" + bytes(64)),
    "length-without-end": raw(b"\x30" + b"\xff" * 100_000),
    "length-0": lie(0, 0),
    "length-1": lie(1, 0),
    "length-one-less": lie(-1, 0, True),
    "length-one-more": lie(1, 0, True),
    "length-200-MiB": lie(200 << 20, 0),
    "length-256-MiB": lie(256 << 20, 1),
    "payload-16385": long(MESSAGE_MAX + 1, 1),
    "payload-64-KiB": long(64 << 10, 0),
    "payload-1-MiB": long(1 << 20, 1),
}

# In the place of a CONNACK.
GARBAGE: dict[str, bytes] = {
    "nothing": b"",
    "half": b"\x20\x02\0",
    "too-long": b"\x20\x03\0\0\0",
    "reserved-flags": b"\x2f\x02\0\0",
    "suback": b"\x90\x03\0\1\1",
    "publish": b"\x30\x05\0\1x{}",
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "zeros": bytes(64),
    "ones": b"\xff" * 64,
}
