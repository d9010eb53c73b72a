"""
A TCP relay between a simulated device and a server, with a hand on the wire: cut, refuse, stall,
throttle.

The device's operating system knows no Wi-Fi, so its link is this relay: give the device the
relay's address in the place of the server's. All relays share one event loop in one thread;
every method may be called from any thread.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field

_CHUNK = 4096  # bytes passed on at a time
_TICK = 0.02  # seconds between two looks at a stalled link
_WAIT = 10  # seconds until the loop's thread has to have answered
_KEEP = 1000  # connections remembered
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST

_lock = threading.Lock()
_loops: list[asyncio.AbstractEventLoop] = []


def _call(work):
    """
    Runs a coroutine in the relays' thread and waits for it. Raises what it raises, TimeoutError.
    """
    with _lock:
        if not _loops:
            _loops.append(asyncio.new_event_loop())
            threading.Thread(target=_loops[0].run_forever, name="relays", daemon=True).start()
    return asyncio.run_coroutine_threadsafe(work, _loops[0]).result(_WAIT)


@dataclass
class Connection:
    """
    One that the device opened. Bytes passed on to the device and to the server; open: still
    standing.
    """

    to_device: int = 0
    to_server: int = 0
    open: bool = True
    limit: int | None = None  # cut when so many bytes went to the device
    writers: list = field(default_factory=list, repr=False)


class Relay:
    """
    Listens on 127.0.0.1 and passes on to a server; a context manager.

    host, port: the server; listen: port to listen on, 0 = a free one; buffer: bytes of the
    sockets' buffers (the kernel doubles it), None = its own choice, so that a throttled server
    does not run ahead of the device; tls: the device's side speaks TLS, as this server says.

    Set at any time: rate (bytes/s to the device, None = as fast as it goes), refuse (new
    connections end at once), stalled (no byte passes in either direction, connections stay).
    """

    def __init__(
        self,
        host: str,
        port: int,
        listen: int = 0,
        rate: float | None = None,
        buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ):
        self.rate = rate
        self.refuse = False
        self.stalled = False
        self.connections: deque[Connection] = deque(maxlen=_KEEP)
        self._server = (host, port)
        self._buffer = buffer
        self._limits: deque[int] = deque()
        self._tasks: set[asyncio.Task] = set()
        self._listener = socket.create_server(("127.0.0.1", listen))
        self._size(self._listener)
        self.host, self.port = self._listener.getsockname()
        self._relay = _call(
            asyncio.start_server(self._serve, sock=self._listener, limit=_CHUNK, ssl=tls)
        )

    def cut_after(self, *counts: int) -> None:
        """
        The next connections, one for each count, are cut when so many bytes went to the device.
        """
        self._limits.extend(counts)

    def cut(self) -> None:
        """Resets all connections."""
        _call(self._cut())

    def down(self) -> None:
        """No link: cuts, and refuses what comes."""
        self.refuse = True
        self.cut()

    def up(self) -> None:
        self.refuse = self.stalled = False

    def close(self) -> None:
        """Ends it. Twice is harmless."""
        _call(self._close())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _size(self, sock: socket.socket) -> None:
        if self._buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._buffer)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)

    async def _cut(self) -> None:
        for connection in self.connections:
            self._reset(connection)

    async def _close(self) -> None:
        self._relay.close()
        await self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @staticmethod
    def _reset(connection: Connection) -> None:
        connection.open = False
        for writer in connection.writers:
            with contextlib.suppress(OSError, AttributeError):  # TLS that has ended has none
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        connection.writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(task := asyncio.current_task())
        connection = Connection()
        if self._limits and not self.refuse:
            connection.limit = self._limits.popleft()
        connection.writers.append(writer)
        self.connections.append(connection)
        try:
            if not self.refuse:
                await self._join(connection, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # an end was cut, or the relay is closed: both ends see it below
        finally:
            self._reset(connection)
            self._tasks.discard(task)

    async def _join(self, connection: Connection, reader, writer) -> None:
        upstream = socket.socket()
        upstream.setblocking(False)
        self._size(upstream)
        try:
            await asyncio.get_running_loop().sock_connect(upstream, self._server)
        except BaseException:
            upstream.close()
            raise
        from_server, to_server = await asyncio.open_connection(sock=upstream, limit=_CHUNK)
        connection.writers.append(to_server)
        pumps = [
            asyncio.ensure_future(self._pump(connection, reader, to_server, "to_server")),
            asyncio.ensure_future(self._pump(connection, from_server, writer, "to_device")),
        ]
        try:
            # An end of stream goes through to the other side; when both directions ended, all did.
            await asyncio.gather(*pumps)
            await asyncio.gather(*(self._finish(w) for w in connection.writers))
            connection.writers.clear()
        finally:
            for pump in pumps:
                pump.cancel()

    @staticmethod
    async def _finish(writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    async def _pump(self, connection: Connection, reader, writer, count: str) -> None:
        # So drain() waits until the kernel took it all.
        writer.transport.set_write_buffer_limits(high=1)  # with 0, TLS would wait for ever
        free_at = time.monotonic()
        down = count == "to_device"
        while True:
            rate = self.rate if down else None
            data = await reader.read(min(_CHUNK, max(1, int(rate * _TICK))) if rate else _CHUNK)
            while self.stalled:
                await asyncio.sleep(_TICK)
            if not data:
                break
            if rate:
                free_at = max(free_at, time.monotonic() - _TICK) + len(data) / rate
                await asyncio.sleep(max(0, free_at - time.monotonic()))
            if down and connection.limit is not None:
                data = data[: connection.limit - connection.to_device]
            if data:
                writer.write(data)
                setattr(connection, count, getattr(connection, count) + len(data))
                await writer.drain()
            if down and connection.to_device == connection.limit:
                raise ConnectionResetError
        if writer.can_write_eof():  # TLS cannot: there the end of one direction is that of both
            writer.write_eof()
        else:
            writer.close()
