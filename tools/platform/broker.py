"""
The embedded MQTT broker: amqtt behind a listener of ours, with the login and the topic rights of
docs/protocol.md.

The login is asked at the door too: amqtt 0.12 throws out the client of that name before it asks,
and asks nobody about a will. Our own listener, since it then tells its port, bounds a packet, and
drops dead connections, none of which amqtt 0.12 does. Nothing is kept for a device that is away,
and nothing retained for one: a missed command comes back by the device's `get` alone.
"""

import asyncio
import io
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker as _Amqtt
from amqtt.contexts import Action, BrokerConfig, ListenerConfig, ListenerType
from amqtt.errors import AMQTTError, CodecError, MQTTError, NoDataError
from amqtt.mqtt.connect import ConnectPacket
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from sqlalchemy.exc import SQLAlchemyError

_PACKET_MAX = 20 * 1024  # bytes: a message of 16 KB, its topic, and some
_LISTENER = "default"
_CONNECT_S = 10.0  # for the first packet
_REFUSED = b"\x20\x02\x00\x05"  # CONNACK, not authorized (MQTT 3.1.1, 3.2)
_AWAY = b"\x20\x02\x00\x03"  # server unavailable
_STOP_S = 5.0
_FILTERS_MAX = 20  # of one client: each message is compared with all filters
_UNREAD_MAX = 64 * 1024  # bytes that wait for a client; beyond, what is for it is lost
_UNACKED_MAX = 100  # messages at QoS 1, likewise
_LOOK_S = 5.0
_STUCK = 6  # looks in a row at which nothing has moved: that client is shown out
_CLEAN = 0x02  # the flag of a CONNECT (MQTT 3.1.1, 3.1.2.4)

_NOT_MQTT = (AMQTTError, MQTTError, NoDataError, CodecError, ValueError)

# (client id, user name, password) -> may it come in?
Login = Callable[[str, str, str], bool]
# (client id, user name, topic or filter) -> may it publish or subscribe it?
Rights = Callable[[str, str, str], bool]


class LoginPlugin(BaseAuthPlugin):
    """Asks the platform. amqtt makes it by its name, so what it needs comes as configuration."""

    @dataclass
    class Config:
        login: Any = (
            None  # Login; amqtt checks the types of a configuration, and knows no Callable
        )

    async def authenticate(self, *, session) -> bool:
        """True when the three parts of the login fit, see docs/protocol.md."""
        parts = session.client_id, session.username, session.password
        return await _may_come_in(self.config.login, *parts)


class TopicPlugin(BaseTopicPlugin):
    """Asks the platform who may say what, and hear what."""

    @dataclass
    class Config:
        rights: Any = None  # Rights
        room: Any = None  # (session) -> bool: is there room for one more message to it?

    async def topic_filtering(self, *, session=None, topic=None, action=None) -> bool:
        """For each subscription, each message that comes, and each that goes out."""
        if session is None or type(topic) is not str:
            return False
        if action is Action.RECEIVE and not self.config.room(session):
            return False
        return self.config.rights(session.client_id or "", session.username or "", topic)


class _Subscriptions(dict):
    """
    Filters, each with who has it. amqtt 0.12 goes through them with pauses, in which others come
    and go: it gets a copy, else a message is lost in that moment.
    """

    def __iter__(self):
        return iter(list(super().__iter__()))

    def items(self):
        return [(name, list(who)) for name, who in super().items()]


class _Bounded(_Amqtt):
    """
    amqtt with bounds on what one client makes the broker keep: filters, and retained messages,
    which only one client may have. keeper: its client id.
    """

    def __init__(self, config: BrokerConfig, rights: Rights, keeper: str):
        super().__init__(config)
        self._rights, self._keeper = rights, keeper
        self._filters: dict[str, set[str]] = {}  # by client id
        self._subscriptions = _Subscriptions()
        self._left_over: dict[int, list] = {}  # messages of who has gone, by id of the session

    def entered(self, client_id: str):
        """A new connection: it has subscribed nothing yet."""
        self._filters[client_id] = set()

    def left(self, client_id: str):
        self._filters.pop(client_id, None)

    async def add_subscription(self, subscription, session) -> int:
        filters = self._filters.setdefault(session.client_id, set())
        if subscription[0] not in filters and len(filters) >= _FILTERS_MAX:
            return 0x80
        filters.add(subscription[0])
        return await super().add_subscription(subscription, session)

    async def _client_message_loop(self, client_session, handler):
        # A device says something, and restarts: amqtt acknowledged it, and would not hand it on.
        await super()._client_message_loop(client_session, handler)
        for message in self._left_over.pop(id(client_session), ()):
            told = asyncio.get_running_loop().create_future()
            told.set_result(message)
            await self._handle_message_delivery(client_session, handler, told)

    async def _handle_disconnect(self, client_session, handler, disconnect_waiter):
        queue, rest = client_session.delivered_message_queue, []
        while not queue.empty():
            rest.append(queue.get_nowait())
        self._left_over[id(client_session)] = rest
        await super()._handle_disconnect(client_session, handler, disconnect_waiter)

    async def retain_message(self, source_session, topic_name, data, qos=None):
        if source_session.client_id == self._keeper:
            await super().retain_message(source_session, topic_name, data, qos)

    async def _publish_retained_messages_for_subscription(self, subscription, session):
        # amqtt does so for the filters of all clients, when one comes.
        if subscription[0] in self._filters.get(session.client_id, ()):
            await super()._publish_retained_messages_for_subscription(subscription, session)


class Broker:
    """
    host, port: where to listen, port 0 = any free one; login: who may come in; rights: who may
    publish and subscribe what; keeper: the client id whose retained messages are kept. login is
    called in threads, rights in the event loop.
    """

    def __init__(self, host: str, port: int, login: Login, rights: Rights, keeper: str):
        self._host, self._port, self._login = host, port, login
        self._rights, self._keeper = rights, keeper
        self._connections: dict[asyncio.Task, asyncio.StreamWriter] = {}
        self._inside: dict[str, asyncio.StreamWriter] = {}  # by client id
        self._amqtt: _Bounded | None = None
        self._watch: asyncio.Task | None = None
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that it listens on, once started."""
        return self._port

    async def start(self):
        """Raises OSError when the port is taken."""
        # amqtt reports each lost client with a traceback; who wants that sets up logging.
        logging.getLogger("amqtt").addHandler(logging.NullHandler())
        asyncio.get_running_loop().set_exception_handler(_without_amqtt)
        self._amqtt = _Bounded(
            BrokerConfig(
                listeners={_LISTENER: ListenerConfig(type=ListenerType.EXTERNAL)},
                plugins={
                    f"{__name__}.LoginPlugin": {"login": self._login},
                    f"{__name__}.TopicPlugin": {"rights": self._rights, "room": self._has_room},
                },
            ),
            self._rights,
            self._keeper,
        )
        await self._amqtt.start()
        try:
            self._server = await asyncio.start_server(self._accept, self._host, self._port)
        except OSError:
            await self._amqtt.shutdown()
            raise
        self._port = self._server.sockets[0].getsockname()[1]
        self._watch = asyncio.create_task(self._show_out_the_stuck())

    async def stop(self):
        """Closes all connections. Harmless when it never started."""
        if not self._server:
            return
        self._server.close()
        self._server = None
        self._watch.cancel()
        # First what came in goes: amqtt 0.12 waits for ever for a reader that missed its
        # cancellation (asyncio.wait_for before Python 3.12 may swallow one).
        for writer in self._connections.values():
            writer.close()
        await _end(*self._connections)
        await _end(asyncio.ensure_future(self._amqtt.shutdown()))

    def show_out(self, client_id: str):
        """Ends the connection of that client, if there is one. In the event loop."""
        if client_id in self._inside:
            self._inside[client_id].transport.abort()

    async def _accept(self, reader, writer):
        self._connections[asyncio.current_task()] = writer
        _keep_alive(writer.get_extra_info("socket"))
        door = _Reader(reader)
        client_id = None
        try:
            connect = await asyncio.wait_for(ConnectPacket.from_stream(door), _CONNECT_S)
            login = connect.client_id, connect.username, connect.password
            if await _may_come_in(self._login, *login) and self._may_leave(connect):
                client_id = connect.client_id
                self._throw_out(client_id)
                self._inside[client_id] = writer
                self._amqtt.entered(client_id)
                door.rewind()
                adapter = StreamWriterAdapter(writer)
                await self._amqtt.external_connected(door, adapter, _LISTENER)
            else:
                writer.write(_REFUSED)
                await writer.drain()
        except (OSError, asyncio.TimeoutError, EOFError, *_NOT_MQTT):
            pass  # the client has gone, or speaks something else
        except SQLAlchemyError:
            writer.write(_AWAY)  # the data base has to say who it is
        except asyncio.CancelledError:
            pass  # stop(); the stream protocol would log it as an error
        finally:
            writer.close()
            del self._connections[asyncio.current_task()]
            if self._inside.get(client_id) is writer:
                del self._inside[client_id]
                self._amqtt.left(client_id)

    def _has_room(self, session):
        # What a client does not read or acknowledge must not pile up; a device asks again.
        if session.client_id == self._keeper:
            return True
        writer = self._inside.get(session.client_id)
        if writer is None or writer.transport.get_write_buffer_size() > _UNREAD_MAX:
            return False
        return session.inflight_out_count < _UNACKED_MAX

    async def _show_out_the_stuck(self):
        # amqtt waits for ever for who does not read, and keeps all that came after for others.
        looks: dict[str, tuple[int, int]] = {}  # bytes that wait for a client, and since how many
        while True:
            await asyncio.sleep(_LOOK_S)
            before, looks = looks, {}
            for client_id, writer in list(self._inside.items()):
                waits = writer.transport.get_write_buffer_size()
                known, count = before.get(client_id, (0, 0))
                count = count + 1 if waits and waits == known else 0
                looks[client_id] = waits, count
                if count >= _STUCK:
                    writer.transport.abort()

    def _may_leave(self, connect):
        # A will is a message like any other.
        if not connect.will_flag:
            return True
        topic = connect.will_topic
        return type(topic) is str and self._rights(connect.client_id, connect.username, topic)

    def _throw_out(self, client_id):
        # MQTT 3.1.1, 3.1.4: who comes again has left; its old connection may not know it yet.
        if client_id in self._inside:
            self._inside[client_id].close()


class _Reader(StreamReaderAdapter):
    """
    Refuses a packet that is too long before it is read: amqtt would take 256 MB. And it can go
    back to its first byte, since amqtt is to read the CONNECT that was read at the door; as one
    with a clean session, for amqtt keeps the others for ever.
    """

    def __init__(self, reader):
        super().__init__(reader)
        self._first = io.BytesIO()
        self._recording = True
        # Of the packet that comes: bytes of its body that are left; its length so far, and the
        # factor of the next byte of it, 0 = the packet has not begun.
        self._left = self._length = self._factor = 0

    def rewind(self):
        """Once: what was read so far, a CONNECT, comes again."""
        data = bytearray(self._first.getvalue())
        at = 1
        while data[at] & 0x80:
            at += 1
        name = at + 1
        data[name + 2 + int.from_bytes(data[name : name + 2], "big") + 1] |= _CLEAN
        self._first = io.BytesIO(data)
        self._recording = False

    async def read(self, n: int = -1) -> bytes:
        if not self._recording and (again := self._first.read(n)):
            return again
        if n > _PACKET_MAX:
            raise ConnectionError(f"MQTT packet of {n} bytes")
        data = await super().read(n)
        self._count(data)
        if self._recording:
            self._first.write(data)
        return data

    def _count(self, data):
        # MQTT 3.1.1, 2.2.3: one byte, then the length in up to four, of 7 bits each. A read never
        # goes beyond one packet.
        body = min(self._left, len(data))
        self._left -= body
        for byte in data[body:]:
            if not self._factor:
                self._length, self._factor = 0, 1
            else:
                self._length += (byte & 0x7F) * self._factor
                self._factor <<= 7
                if self._length > _PACKET_MAX:
                    raise ConnectionError(f"MQTT packet of {self._length} bytes or more")
                if not byte & 0x80:
                    self._left, self._factor = self._length, 0


async def _end(*tasks):
    # Waits for their end, not for ever.
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=_STOP_S)
        for task in late:
            task.cancel()


async def _may_come_in(login, *parts):
    # In a thread, since the data base may let one wait. Nobody of ours has other signs in a name.
    known = all(type(part) is str and part.isprintable() for part in parts)
    return known and await asyncio.to_thread(login, *parts)


def _without_amqtt(loop, context):
    # Its tasks end with its own errors, and nobody asks them.
    if type(context.get("exception")).__module__ != AMQTTError.__module__:
        loop.default_exception_handler(context)


def _keep_alive(sock):
    # amqtt never closes a connection for its silence. TCP does, for a device that lost its power:
    # after 2 minutes.
    for level, option, value in (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 60),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 15),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 4),
    ):
        if hasattr(socket, option):
            sock.setsockopt(level, getattr(socket, option), value)
