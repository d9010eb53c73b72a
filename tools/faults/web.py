"""
A scripted HTTP server: what it says, byte for byte, is up to a behaviour.

Runs on raw sockets in the caller's event loop, at 127.0.0.1. Knows of HTTP only what the good
server needs: GET, and ranges without an end. Sends through small buffers, so that what was sent
is about what the client has. Source: RFC 9110 (14.2 Range, 14.4 Content-Range).
"""

import asyncio
import contextlib
import re
import socket
import struct
import termios
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fcntl import ioctl

_REQUEST_MAX = 16384  # bytes of a request that is read before the client is let go
_SEND_BUFFER = (
    65536  # bytes; the kernel doubles it; smaller ones now and then wait 40 ms for an ACK
)
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST
_FLUSH_S = 1  # the longest wait for the client's kernel to take what was sent
_TICK_S = 0.001
_READ_S = 0.05  # and the client to read it: a reset may take away what was not read


@dataclass
class Request:
    """
    One request. path: with its query, as asked for; headers: names in lower case; start: where its
    range begins, 0 without one; status: of the answer, 0 = none was sent.
    """

    path: str
    headers: dict[str, str]
    start: int = 0
    status: int = 0


def head(status: str, *headers: str) -> bytes:
    """The head of an answer. status: "404 Not Found"; headers: whole lines, "Name: value"."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1")


class Exchange:
    """
    One request and its answer, in a behaviour's hands; the connection closes when that returns.

    request: Request; content: bytes of the file that was asked for; number: of the request, from
    0, see Web.requests. All methods that write raise OSError when the client is gone.
    """

    def __init__(self, sock: socket.socket, request: Request, content: bytes, number: int):
        self.request, self.content, self.number = request, content, number
        self._sock = sock
        self._first = b""  # of the answer, as much as has the status

    async def send(self, data: bytes) -> None:
        """Sends it; returns when the kernel has all of it."""
        if len(self._first) < 12:
            self._first += data[:12]
            if found := re.match(rb"HTTP/\d\.\d (\d{3})", self._first):
                self.request.status = int(found[1])
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    def good_head(self) -> bytes:
        """The head of what good() answers."""
        size, start = len(self.content), self.request.start
        fixed = (f"Content-Length: {size - start}", "Accept-Ranges: bytes", "Connection: close")
        if "range" not in self.request.headers:
            return head("200 OK", *fixed)
        if start >= size:
            return head("416 Range Not Satisfiable", *fixed[2:], f"Content-Range: bytes */{size}")
        span = f"Content-Range: bytes {start}-{size - 1}/{size}"
        return head("206 Partial Content", *fixed, span)

    async def good(self) -> None:
        """Answers as the good server does."""
        await self.send(self.good_head() + self.content[self.request.start :])

    async def pause(self, seconds: float) -> None:
        """Says nothing for so long."""
        await asyncio.sleep(seconds)

    async def gone(self) -> None:
        """Says nothing until the client has closed its end."""
        loop = asyncio.get_running_loop()
        while await loop.sock_recv(self._sock, 4096):
            pass

    async def reset(self) -> None:
        """
        Ends the connection by RST, when the client's kernel has what was sent (at most 1 s), and
        the client had time to read it.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _FLUSH_S
        while loop.time() < end and any(ioctl(self._sock, termios.TIOCOUTQ, bytes(4))):
            await asyncio.sleep(_TICK_S)
        if self._first:
            await asyncio.sleep(_READ_S)
        _reset(self._sock)

    async def close(self) -> None:
        """Ends the connection by FIN."""
        self._sock.close()


class Web:
    """
    The server. Every test case may have its own, or clear `requests` when it begins.

    files: path ("/1.1.0.bin", without a query) to content; what is not there is answered by 404
    whatever the behaviour. behave: takes the Exchange, None = the good server. requests: those
    that came, in order. connections: int, accepted ones.
    """

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.behave: Callable[[Exchange], Awaitable[None]] | None = None
        self.requests: list[Request] = []
        self.connections = 0
        self._listener: socket.socket | None = None
        self._acceptor: asyncio.Task | None = None
        self._open: dict[socket.socket, asyncio.Task] = {}
        self._wrong: list[BaseException] = []  # what behaviours raised

    async def start(self, port: int = 0) -> int:
        """Listens. port: 0 = a free one. Returns the port. Raises OSError."""
        self._listener = listener = socket.create_server(("127.0.0.1", port), backlog=64)
        listener.setblocking(False)
        # The sockets that it accepts inherit both.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._acceptor = asyncio.create_task(self._accept(listener))
        return listener.getsockname()[1]

    async def stop(self) -> None:
        """
        RST to all, and nobody listens. Twice is harmless. Raises what a behaviour raised, OSError
        excepted: that is a client that had enough.
        """
        if self._listener:
            self._acceptor.cancel()
            _release(self._listener)
            self._listener.close()
            self._listener = None
        tasks = list(self._open.values())
        self.drop()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._wrong:
            raise self._wrong.pop(0)

    def drop(self) -> None:
        """RST to all; goes on listening."""
        for sock, task in self._open.items():
            if sock.fileno() >= 0:
                _reset(sock)
            task.cancel()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock = (await loop.sock_accept(listener))[0]
            self.connections += 1
            task = asyncio.create_task(self._serve(sock))
            self._open[sock] = task
            task.add_done_callback(lambda task, sock=sock: self._done(sock, task))

    def _done(self, sock: socket.socket, task: asyncio.Task) -> None:
        del self._open[sock]
        sock.close()
        if not task.cancelled() and task.exception():
            self._wrong.append(task.exception())

    async def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            request = await _read(sock)
            if not request:
                return
            content = self.files.get(request.path.split("?")[0])
            exchange = Exchange(sock, request, content or b"", len(self.requests))
            self.requests.append(request)
            if content is None:
                await exchange.send(head("404 Not Found", "Content-Length: 0"))
            elif self.behave:
                await self.behave(exchange)
            else:
                await exchange.good()


async def _read(sock: socket.socket) -> Request | None:
    """A request from its first line to the blank one; None when it is none, or not all came."""
    loop = asyncio.get_running_loop()
    data = b""
    while b"\r\n\r\n" not in data:
        part = await loop.sock_recv(sock, 4096)
        data += part
        if not part or len(data) > _REQUEST_MAX:
            return None
    first, *lines = data.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
    found = re.fullmatch(r"GET (\S+) HTTP/1\.[01]", first)
    if not found:
        return None
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    span = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
    return Request(found[1], headers, int(span[1]) if span else 0)


def _release(sock: socket.socket) -> None:
    # The loop must not look at a socket that is about to close.
    loop = asyncio.get_running_loop()
    loop.remove_reader(sock)
    loop.remove_writer(sock)


def _reset(sock: socket.socket) -> None:
    _release(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()
