"""
A scripted MQTT broker: answers one device as MQTT 3.1.1 says, misbehaves as it is told.

Strict towards the device: a packet that is malformed, or that our device has no reason to send (a
will, QoS 2, a wildcard), is noted in `errors` and ends the connection. Keeps nothing for a device
that is away but retained messages, and passes nothing on between clients. Source: MQTT 3.1.1, by
its chapters.
"""

import asyncio
import socket
import struct
from collections.abc import Callable

_HOST = "127.0.0.1"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST
_REFUSED = 0x80  # return code of a SUBACK
_PID_MAX = 65535


class Broker:
    """
    on_message(topic, payload): called for each PUBLISH of the device, before its PUBACK goes out.
    on_session(up): True after the first SUBACK of a connection (and what was retained), False when
    such a connection ends. Both are called in the loop, and may call every method but the
    coroutines.
    """

    def __init__(
        self,
        on_message: Callable[[str, bytes], None],
        on_session: Callable[[bool], None] | None = None,
    ):
        # What it does wrong; set at any time.
        self.refuse_connect = 0  # return code of the CONNACK
        self.silent = False  # takes connections, reads and forgets what comes, says nothing
        self.refuse_subscribe = False
        self.lose_puback = 0  # so many of the next PUBACKs are not sent
        self.lose_suback = 0  # the same; the subscription stands, on_session is not called
        self.redeliver = False  # each PUBLISH at QoS 1 goes out twice, then with DUP
        self.garbage: bytes | None = None  # in the place of each CONNACK
        self.max_packet = 1 << 20  # bytes; a longer packet is an error, before it is read
        # What it saw.
        self.logins: list[dict] = []  # client_id, user, password (None: absent), keepalive, clean
        self.received: list[tuple[str, bytes, int, bool]] = []  # topic, payload, QoS, DUP
        self.errors: list[str] = []
        self.pings = 0
        self.port = 0
        self.on_message = on_message
        self.on_session = on_session or (lambda up: None)
        self.retained: dict[str, tuple[bytes, int]] = {}  # by topic: payload, QoS
        self.connections: dict[_Connection, None] = {}  # in their order
        self._listener: socket.socket | None = None
        self._accepted: set[asyncio.Task] = set()

    @property
    def unacked(self) -> int:
        """Messages at QoS 1 for which the device, in the session that stands, owes a PUBACK."""
        return sum(len(connection.owed) for connection in self.connections if connection.open)

    async def start(self, port: int = 0) -> int:
        """
        port: 0 = the one that it had before, at first any free one. Returns the port. Raises
        OSError: it is taken.
        """
        self._listener = socket.create_server((_HOST, port or self.port))
        self._listener.setblocking(False)
        # No asyncio.Server: one that closes forgets, and leaves open, what it has just accepted.
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        self.port = self._listener.getsockname()[1]
        return self.port

    async def stop(self) -> None:
        """Resets all connections; new ones are refused. Harmless when it never started."""
        if self._listener:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        await asyncio.gather(*self._accepted)
        self.drop()
        await asyncio.sleep(0)  # the sockets are closed by the loop's next round

    def publish(
        self,
        topic: str,
        payload: bytes,
        qos=1,
        retain=False,
        dup=False,
        size_lie: int | None = None,
    ) -> int:
        """
        To every session that subscribed to this topic, at no more than the QoS that it asked for;
        dropped when there is none. retain: kept for those to come, b"" clears; dup: says that it
        went out before; size_lie: remaining length that the packet claims, any number from 0 on.
        Returns how many sessions it was for.
        """
        if retain and payload:
            self.retained[topic] = payload, qos
        elif retain:
            self.retained.pop(topic, None)
        sessions = [one for one in self.connections if one.open and topic in one.topics]
        for connection in sessions:
            connection.deliver(topic, payload, qos, dup=dup, size_lie=size_lie)
        return len(sessions)

    def send_raw(self, data: bytes) -> None:
        """As it is, to every connection, logged in or not; even when it is silent."""
        for connection in self.connections:
            if connection.open:
                connection.transport.write(data)

    def drop(self) -> None:
        """Ends all connections by RST. It goes on listening."""
        for connection in list(self.connections):
            connection.end(reset=True)

    def takeover(self) -> None:
        """Ends all connections by FIN, as when others log in with their client ids (3.1.4)."""
        for connection in list(self.connections):
            connection.end()

    def _accept(self):
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # it has gone again
        sock.setblocking(False)
        made = asyncio.get_running_loop().connect_accepted_socket(lambda: _Connection(self), sock)
        self._accepted.add(task := asyncio.ensure_future(made))
        task.add_done_callback(self._accepted.discard)


class _Malformed(Exception):
    """What the device sent is not MQTT 3.1.1, or not what a device of ours sends."""


class _Reader:
    """The body of a packet, field after field. Each method raises _Malformed."""

    def __init__(self, data: bytes):
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that were not taken yet."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise _Malformed(f"packet ends {size - self.left} bytes early")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def pid(self) -> int:
        if pid := self.number(2):
            return pid
        raise _Malformed("packet id 0")

    def text(self) -> str:  # 1.5.3
        try:
            text = self.take(self.number(2)).decode()
        except UnicodeDecodeError as error:
            raise _Malformed("text that is not UTF-8") from error
        if "\0" in text:
            raise _Malformed("text with a NUL")
        return text

    def topic(self) -> str:
        topic = self.text()
        if not topic or "+" in topic or "#" in topic:
            raise _Malformed(f"topic {topic!r}")
        return topic

    def end(self) -> None:
        if self.left:
            raise _Malformed(f"{self.left} bytes too many")


def _cut(buffer: bytearray, longest: int) -> tuple[int, _Reader] | None:
    # Takes the first packet off the buffer: its first byte and its body. None: not whole yet.
    size = 0
    for place in range(1, min(5, len(buffer))):  # 2.2.3
        size |= (buffer[place] & 127) << 7 * (place - 1)
        if buffer[place] < 128:
            break
    else:
        if len(buffer) >= 5:
            raise _Malformed("remaining length of more than 4 bytes")
        return None
    end = place + 1 + size
    if end > longest:
        raise _Malformed(f"packet of {end} bytes")
    if len(buffer) < end:
        return None
    packet = buffer[0], _Reader(bytes(buffer[place + 1 : end]))
    del buffer[:end]
    return packet


def _length(size: int) -> bytes:
    # 2.2.3; a lie may need more than the 4 bytes that are allowed.
    digits = bytearray()
    while size > 127:
        digits.append(size & 127 | 128)
        size >>= 7
    return bytes(digits) + bytes((size,))


class _Connection(asyncio.Protocol):
    """One TCP connection. (asyncio's own transport sets TCP_NODELAY.)"""

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
            while self.open and (packet := _cut(self._buffer, self._broker.max_packet)):
                self._handle(*packet)
        except _Malformed as error:
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
        size = _length(len(rest) if size_lie is None else size_lie)
        for flag in flags:
            self._send(bytes((0x30 | flag << 3 | qos << 1 | retain,)) + size + rest)

    def _send(self, data: bytes) -> None:
        if self.open and not self._broker.silent and not self._mute:
            self.transport.write(data)

    def _handle(self, first: int, body: _Reader) -> None:
        if self._broker.silent:
            self._mute = self._mute or self.client_id is None
            return
        if self._mute:
            return
        if (first == 0x10) != (self.client_id is None):
            raise _Malformed("CONNECT comes first, and once")
        if first >> 4 == 3:
            self._published(first, body)
        elif first in self._handlers:
            self._handlers[first](body)
        else:
            raise _Malformed(f"first byte {first:#04x}")

    def _connect(self, body: _Reader) -> None:  # 3.1
        if body.take(7) != b"\0\4MQTT\4":
            raise _Malformed("CONNECT of another protocol")
        flags = body.number(1)
        # Only user name, password and clean session may be set; no password without a name.
        if flags & ~0xC2 or flags & 0xC0 == 0x40:
            raise _Malformed(f"CONNECT flags {flags:#04x}")
        login = {
            "keepalive": body.number(2),
            "clean": bool(flags & 2),
            "client_id": (client_id := body.text()),
            "user": body.text() if flags & 0x80 else None,
            "password": body.text() if flags & 0x40 else None,
        }
        body.end()
        if not client_id:
            raise _Malformed("CONNECT without a client id")
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

    def _published(self, first: int, body: _Reader) -> None:  # 3.3
        qos, dup = first >> 1 & 3, bool(first & 8)
        if qos > 1 or dup > qos:
            raise _Malformed(f"PUBLISH flags {first & 15:#x}")
        topic = body.topic()
        pid = body.pid() if qos else 0
        payload = body.take(body.left)
        self._broker.received.append((topic, payload, qos, dup))
        self._broker.on_message(topic, payload)
        if qos and self._broker.lose_puback:
            self._broker.lose_puback -= 1
        elif qos:
            self._send(struct.pack(">BBH", 0x40, 2, pid))

    def _puback(self, body: _Reader) -> None:  # 3.4
        pid = body.pid()
        body.end()
        if pid not in self.owed:
            raise _Malformed(f"PUBACK of packet {pid}")
        self.owed[pid] -= 1
        if not self.owed[pid]:
            del self.owed[pid]

    def _subscribe(self, body: _Reader) -> None:  # 3.8
        pid = body.pid()
        wanted = [(body.topic(), body.number(1))]
        while body.left:
            wanted.append((body.topic(), body.number(1)))
        if any(qos > 1 for _, qos in wanted):
            raise _Malformed("SUBSCRIBE at QoS 2, or more")
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

    def _pingreq(self, body: _Reader) -> None:  # 3.12
        body.end()
        self._broker.pings += 1
        self._send(b"\xd0\0")

    def _disconnect(self, body: _Reader) -> None:  # 3.14
        body.end()
        self.end()
