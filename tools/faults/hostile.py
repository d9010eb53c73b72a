"""
A platform that says what no platform should, one message after the other, and hears what each one
is answered.

After each message comes one that is always refused, by an id of its own: what the device says
until that refusal is its answer. So the queues of the device never fill up.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from ota import protocol as p
from tools.platform import wire

from . import fuzz, trust
from .check import need
from .linkfaults import COMMANDS
from .record import Heard
from .scene import NAME, PRODUCT
from .world import World

ANSWERS = wire.topic((PRODUCT, NAME), wire.GET_REPLY)

# Names resolve, and ports are reached, on this machine alone, and only where the case is: so what
# is made of a URL stays here.
_LOCAL = """
import socket as _socket
import sys


class _Local:
    def __getattr__(self, name):
        return getattr(_socket, name)

    def getaddrinfo(self, host, port, *more):
        from places import PORTS

        if host != "127.0.0.1" or port not in PORTS:
            raise OSError(-2)
        return _socket.getaddrinfo(host, port, *more)


sys.modules["socket"] = sys.modules["usocket"] = _Local()
"""

HOLD = "hold"  # a file on the device: self-tests wait for the message "go"

# A message "ask" makes the device ask by `get`.
_MORE = """
import os

going = "hold" not in os.listdir()


def begin(agent, link):
    def heard(topic, msg):
        global going
        if topic == b"ask":
            agent.connected()
        elif topic == b"go":
            going = True

    agent.on_message = heard
    link.subscribe("ask", 0)
    link.subscribe("go", 0)
"""

MORE = _LOCAL + _MORE  # for the end of boot.py
_FAILED = range(410, 480)


class Hostile:
    """
    In a World that was made with `more=MORE`, before the device starts. Attributes:
    accepted: msgIds of what it took on, and how often.
    """

    def __init__(self, world: World):
        self.world = world
        self.accepted: Counter[str] = Counter()
        self._publish: Callable = world.broker.publish
        self._fence = 0
        self._asked: list[str] = []
        self._mute = False
        self._garbled = False  # something that is not UTF-8 was said: so may be what it echoes
        world.device.put("places.py", f"PORTS = {world.ports!r}\n")
        world.broker.publish = self._platform
        self._before = world.broker.on_message
        world.broker.on_message = self._message

    def subscribed(self, login: int) -> None:
        """
        Until the device listens on its connection of that number, from 1. The one before may
        still be there.
        """
        broker = self.world.broker
        self.world.until(
            lambda: (
                len(broker.logins) >= login
                and any("go" in one.topics for one in list(broker.connections)[-1:])
            ),
            "it subscribes",
        )

    def say(self, topic: str, payload: bytes = b"") -> None:
        """Just so."""
        self.world.do(self._publish, topic, payload)

    def tell(self, payload: bytes, topic: str = COMMANDS) -> list[Heard]:
        """Returns what the device said to it."""
        self._fence += 1
        self._garbled |= "\ufffd" in payload.decode(errors="replace")
        fence, heard = f"fence-{self._fence}", self.world.record.heard
        start = len(heard)
        self.say(topic, payload)
        self.say(COMMANDS, b'{"msgId": "%s"}' % fence.encode())
        self.world.until(
            lambda: any(h.msg_id == fence for h in heard[start:]), f"an answer after {payload!r}"
        )
        said = heard[start:]
        end = next(place for place, h in enumerate(said) if h.msg_id == fence)
        need(said[end].code == 410, f"{said[end]}", self.world)
        self.accepted.update(h.msg_id for h in said if h.code in fuzz.ACCEPTING)
        return said[:end]

    def replies(self, payload: bytes) -> list[int]:
        """To a command. Returns the codes."""
        own = f"{self._fence:0{len(fuzz.OWN_ID)}}"  # as long: the length may be what counts
        return _codes(self.tell(payload.replace(fuzz.OWN_ID.encode(), own.encode())))

    def answer(self, payload: bytes) -> list[int]:
        """To a question of the device, which it is made to put. Returns the codes."""
        self._mute = True
        self._asked.clear()
        self.say("ask")
        self.world.until(lambda: self._asked, "the device asks")
        payload = payload.replace(fuzz.GET_ID.encode(), self._asked[-1].encode())
        said = self.tell(payload, ANSWERS)
        self._mute = False
        return _codes(said)

    def fuzzed(self, payload: bytes, asked: bool) -> None:
        """Tells it, and looks at the answer. Raises Failed."""
        codes = self.answer(payload) if asked else self.replies(payload)
        good = fuzz.allowed(payload, asked)
        if trust.SIGNED:  # nothing here is signed: see rest()
            good |= {p._UNSIGNED}
        what = f"{payload!r} was answered {codes}, and not one of {sorted(good)}"
        need(len(codes) <= 1 and good.issuperset(codes), what, self.world)
        need(asked or codes, f"{payload!r} was not answered", self.world)

    def rest(self) -> None:
        """
        Until it has told all that it had to; then no outcome was told but of what was accepted, no
        two of one, and it has not started anew. What was heard is forgotten then. Raises Failed.
        """
        world = self.world
        world.settle()
        need(len(world.record.boots) == 1, "it started anew", world)
        need(not (trust.SIGNED and self.accepted), "the unsigned was taken on", world)
        told: dict[str, set] = {}
        for heard in world.record.heard:
            if heard.data.get("status") in ("succeeded", "failed"):
                told.setdefault(heard.msg_id, set()).add(heard.data.get("code"))
        for msg_id, codes in told.items():
            taken = self.accepted[msg_id]
            need(len(codes) <= taken, f"{msg_id!r}, taken {taken} times, ended: {codes}", world)
            need(codes <= {None, *_FAILED}, f"{codes}", world)
        need(not world.record.malformed, f"malformed: {world.record.malformed[:1]}", world)
        # For the checks after it, which know of the platform's own commands alone.
        world.record.heard.clear()

    def _platform(self, topic: str, payload: bytes) -> None:
        if not (self._mute and topic == ANSWERS):
            self._publish(topic, payload)

    def _message(self, topic: str, payload: bytes) -> None:
        record = self.world.record
        count = len(record.heard)
        self._before(topic, payload)
        if record.malformed and self._garbled:
            text = payload.decode(errors="replace").encode()
            with suppress(wire.Malformed):
                name = topic.rpartition("/")[2]
                record.heard.append(Heard(name, *wire.read(text), len(record.boots)))
                record.malformed.clear()
        for heard in record.heard[count:]:
            if heard.name == wire.GET and not heard.data.get("firmwareVersion"):
                self._asked.append(heard.msg_id)


def _codes(said: list[Heard]) -> list[int]:
    return [h.code for h in said if h.name == wire.UPGRADE_REPLY]
