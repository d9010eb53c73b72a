"""
The embedded MQTT broker: amqtt behind a listener of ours, with the login of docs/protocol.md from
the start.

Our own listener, since it then tells its port, bounds a packet, and drops dead connections, none
of which amqtt 0.12 does. amqtt keeps nothing for a device that is away: a missed command comes
back by the device's `get` alone.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker as _Amqtt
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.plugins.base import BaseAuthPlugin

_PACKET_MAX = 20 * 1024  # bytes: a message of 16 KB, its topic, and some
_LISTENER = "default"
_STOP_S = 5.0

# (client id, user name, password) -> may it come in?
Login = Callable[[str, str, str], bool]


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
        return all(type(part) is str for part in parts) and self.config.login(*parts)


class Broker:
    """host, port: where to listen, port 0 = any free one; login: who may come in."""

    def __init__(self, host: str, port: int, login: Login):
        self._host, self._port, self._login = host, port, login
        self._connections: set[asyncio.Task] = set()
        self._amqtt: _Amqtt | None = None
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that it listens on, once started."""
        return self._port

    async def start(self):
        """Raises OSError when the port is taken."""
        # amqtt reports each lost client as a warning with traceback; who wants that sets up
        # logging.
        logging.getLogger("amqtt").addHandler(logging.NullHandler())
        plugin = f"{LoginPlugin.__module__}.{LoginPlugin.__qualname__}"
        self._amqtt = _Amqtt(
            BrokerConfig(
                listeners={_LISTENER: ListenerConfig(type=ListenerType.EXTERNAL)},
                plugins={plugin: {"login": self._login}},
            )
        )
        await self._amqtt.start()
        try:
            self._server = await asyncio.start_server(self._accept, self._host, self._port)
        except OSError:
            await self._amqtt.shutdown()
            raise
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self):
        """Closes all connections. Harmless when it never started."""
        if self._server:
            self._server.close()
            await self._amqtt.shutdown()
            for connection in self._connections:
                connection.cancel()
            if self._connections:
                await asyncio.wait(self._connections, timeout=_STOP_S)
            self._server = None

    async def _accept(self, reader, writer):
        self._connections.add(asyncio.current_task())
        _keep_alive(writer.get_extra_info("socket"))
        try:
            await self._amqtt.external_connected(
                _Reader(reader), StreamWriterAdapter(writer), _LISTENER
            )
        except OSError:
            pass  # the client has gone
        except asyncio.CancelledError:
            pass  # stop(); the stream protocol would log it as an error
        finally:
            writer.close()
            self._connections.discard(asyncio.current_task())


class _Reader(StreamReaderAdapter):
    """Refuses a packet that is too long, before it is read: amqtt would take 256 MB."""

    async def read(self, n: int = -1) -> bytes:
        if n > _PACKET_MAX:
            raise ConnectionError(f"MQTT packet of {n} bytes")
        return await super().read(n)


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
