"""One TCP connection to the scripted broker. Source: MQTT 3.1.1, by its chapters."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

from .packets import Malformed, Reader, cut, length

if TYPE_CHECKING:
    from .broker import Broker

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST
_REFUSED = 0x80  # return code of a SUBACK
_PID_MAX = 65535


class Connection(asyncio.Protocol):
    """broker: the one that took it. (asyncio's own transport sets TCP_NODELAY.)"""

    def __init__(self, broker: Broker):
        self.open = False
        self.client_id: str | None = None  # None: no CONNECT came yet
        self.topics: dict[str, int] = {}  # with the QoS granted
        self.owed: dict[int, int] = {}  # by packet id: PUBACKs that the device owes
        self._broker = broker
        self._buffer = bytearray()
        self._pid = 0
        self._mute = False  # its CONNECT fell into the silence
        self._told = False  # on_session(True) was called
        self._handlers = {
            0x10: self._connect,
            0x40: self._puback,
            0x82: self._subscribe,
            0xC0: self._pingreq,
            0xE0: self._disconnect,
        }

    def connection_made(self, transport):
        self.transport = transport
        self._broker.connections[self] = None
        self.open = True

    def connection_lost(self, exc):
        self.end()
        del self._broker.connections[self]

    def data_received(self, data):
        self._buffer += data
        try:
            while self.open and (packet := cut(self._buffer, self._broker.max_packet)):
                self._handle(*packet)
        except Malformed as error:
            self._broker.errors.append(f"{self.client_id}: {error}")
            self.end()

    def end(self, reset: bool = False) -> None:
        """Twice is harmless, and a reset hastens an end that still had something to send."""
        if reset:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
        else:
            self.transport.close()
        if self.open:
            self.open = False
            if self._told:
                self._broker.on_session(False)

    def deliver(
        self, topic: str, payload: bytes, qos: int, retain=False, dup=False, size_lie=None
    ) -> None:
        """A PUBLISH for this session, see Broker.publish; retain: the packet's own flag."""
        qos = min(qos, self.topics[topic])
        flags = [dup]
        if qos:
            self._pid = self._pid % _PID_MAX + 1
            flags += [True] * self._broker.redeliver
            self.owed[self._pid] = len(flags)
        rest = struct.pack(">H", len(topic.encode())) + topic.encode()
        rest += struct.pack(">H", self._pid) if qos else b""
        rest += payload
        size = length(len(rest) if size_lie is None else size_lie)
        for flag in flags:
            self._send(bytes((0x30 | flag << 3 | qos << 1 | retain,)) + size + rest)

    def _send(self, data: bytes) -> None:
        if self.open and not self._broker.silent and not self._mute:
            self.transport.write(data)

    def _handle(self, first: int, body: Reader) -> None:
        if self._broker.silent:
            self._mute = self._mute or self.client_id is None
            return
        if self._mute:
            return
        if (first == 0x10) != (self.client_id is None):
            raise Malformed("CONNECT comes first, and once")
        if first >> 4 == 3:
            self._published(first, body)
        elif first in self._handlers:
            self._handlers[first](body)
        else:
            raise Malformed(f"first byte {first:#04x}")

    def _connect(self, body: Reader) -> None:  # 3.1
        if body.take(7) != b"\0\4MQTT\4":
            raise Malformed("CONNECT of another protocol")
        flags = body.number(1)
        # Only user name, password and clean session may be set; no password without a name.
        if flags & ~0xC2 or flags & 0xC0 == 0x40:
            raise Malformed(f"CONNECT flags {flags:#04x}")
        login = {
            "keepalive": body.number(2),
            "clean": bool(flags & 2),
            "client_id": (client_id := body.text()),
            "user": body.text() if flags & 0x80 else None,
            "password": body.text() if flags & 0x40 else None,
        }
        body.end()
        if not client_id:
            raise Malformed("CONNECT without a client id")
        self._broker.logins.append(login)
        if self._broker.refuse_connect:
            self._send(bytes((0x20, 2, 0, self._broker.refuse_connect)))
            self.end()
            return
        for other in list(self._broker.connections):
            if other.client_id == client_id:
                other.end()
        self.client_id = client_id
        garbage = self._broker.garbage
        self._send(b"\x20\x02\0\0" if garbage is None else garbage)

    def _published(self, first: int, body: Reader) -> None:  # 3.3
        qos, dup = first >> 1 & 3, bool(first & 8)
        if qos > 1 or dup > qos:
            raise Malformed(f"PUBLISH flags {first & 15:#x}")
        topic = body.topic()
        pid = body.pid() if qos else 0
        payload = body.take(body.left)
        self._broker.received.append((topic, payload, qos, dup))
        self._broker.on_message(topic, payload)
        if qos and self._broker.lose_puback:
            self._broker.lose_puback -= 1
        elif qos:
            self._send(struct.pack(">BBH", 0x40, 2, pid))

    def _puback(self, body: Reader) -> None:  # 3.4
        pid = body.pid()
        body.end()
        if pid not in self.owed:
            raise Malformed(f"PUBACK of packet {pid}")
        self.owed[pid] -= 1
        if not self.owed[pid]:
            del self.owed[pid]

    def _subscribe(self, body: Reader) -> None:  # 3.8
        pid = body.pid()
        wanted = [(body.topic(), body.number(1))]
        while body.left:
            wanted.append((body.topic(), body.number(1)))
        if any(qos > 1 for _, qos in wanted):
            raise Malformed("SUBSCRIBE at QoS 2, or more")
        refused = self._broker.refuse_subscribe
        if not refused:
            self.topics.update(wanted)
        if self._broker.lose_suback:
            self._broker.lose_suback -= 1
            return
        codes = bytes(_REFUSED if refused else qos for _, qos in wanted)
        self._send(struct.pack(">BBH", 0x90, 2 + len(codes), pid) + codes)
        if refused:
            return
        for topic, _ in wanted:
            if topic in self._broker.retained:
                self.deliver(topic, *self._broker.retained[topic], retain=True)
        if not self._told:
            self._told = True
            self._broker.on_session(True)

    def _pingreq(self, body: Reader) -> None:  # 3.12
        body.end()
        self._broker.pings += 1
        self._send(b"\xd0\0")

    def _disconnect(self, body: Reader) -> None:  # 3.14
        body.end()
        self.end()
