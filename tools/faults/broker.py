"""
A scripted MQTT broker: answers one device as MQTT 3.1.1 says, misbehaves as it is told.

Strict towards the device: a packet that is malformed, or that our device has no reason to send (a
will, QoS 2, a wildcard), is noted in `errors` and ends the connection. Keeps nothing for a device
that is away but retained messages, and passes nothing on between clients. Source: MQTT 3.1.1, by
its chapters.
"""

import asyncio
import socket
from collections.abc import Callable

from .connection import Connection

_HOST = "127.0.0.1"


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
        self.connections: dict[Connection, None] = {}  # in their order
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
        made = asyncio.get_running_loop().connect_accepted_socket(lambda: Connection(self), sock)
        self._accepted.add(task := asyncio.ensure_future(made))
        task.add_done_callback(self._accepted.discard)
