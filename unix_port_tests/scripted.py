"""
What the tests of ota/stream.py share: a scripted socket, a clock that goes on when told to.

A script is a list: bytes = what the other end sends in one piece, b"" = it closes, int = it is
silent for so many ms, an exception = the socket raises it. After its end the other end is silent
for ever. Source: MicroPython's docs, `socket` (read, readline of a non-blocking socket:
None when there is nothing yet).
"""

import time
import unittest

import ota.stream

stream = ota.stream

POLLIN = 1

_FOREVER_MS = 1 << 28


class Clock:
    """Ticks that go on when told to."""

    def __init__(self):
        self.now = 1000

    def __call__(self):
        return self.now

    def wait(self, ms):
        self.now = time.ticks_add(self.now, ms)


class Socket:
    """One scripted socket, the modules `socket` and `select`, and the poll object of both."""

    POLLIN = POLLIN
    AF_INET = 2

    def __init__(self, clock, *script):
        self.script = list(script)
        self.calls = []  # what was set and made, in order
        self.polls = []  # ms of each wait
        self.sent = b""
        self.takes = []  # what the next writes answer: bytes, None = not now; else all
        self.fails = {}  # name of a method: what it raises
        self.slow = 0  # ms that each read takes
        self._clock = clock

    def _called(self, name, *arguments):
        self.calls.append((name,) + arguments)
        if name in self.fails:
            raise self.fails[name]

    # The modules

    def socket(self, *_):
        self._called("socket")
        return self

    def getaddrinfo(self, host, port):
        return [(2, 1, 0, "", (host, port))]

    def poll(self, ms=None):
        if ms is None:  # select.poll()
            return self
        return self.ipoll(ms)

    def ipoll(self, ms):
        self.polls.append(ms)
        script = self.script
        if script and not isinstance(script[0], int):
            return [(self, POLLIN)]
        silent = script.pop(0) if script else _FOREVER_MS
        if silent <= ms:
            self._clock.wait(silent)
            return [(self, POLLIN)]
        self._clock.wait(ms)
        script.insert(0, silent - ms)
        return []

    def register(self, sock, events):
        self._called("register", sock is self, events)

    # The socket

    def connect(self, address):
        self._called("connect", address)

    def settimeout(self, seconds):
        self._called("settimeout", seconds)

    def setblocking(self, on):
        self._called("setblocking", on)

    def close(self):
        self._called("close")

    def write(self, data):
        self._called("write")
        n = self.takes.pop(0) if self.takes else len(data)
        self.sent += bytes(data[: n or 0])
        return n

    def _take(self, n, end=None):
        self._clock.wait(self.slow)
        if not self.script or isinstance(self.script[0], int):
            return None
        piece = self.script.pop(0)
        if isinstance(piece, Exception):
            raise piece
        if end:
            n = min(n, piece.find(end) + 1 or n)
        if len(piece) > n:
            self.script.insert(0, piece[n:])
        return piece[:n]

    def read(self, n):
        return self._take(n)

    def readline(self, n):
        return self._take(n, b"\n")


class StreamCase(unittest.TestCase):
    def setUp(self):
        self._real = stream.socket, stream.select, stream.ticks_ms
        self.clock = stream.ticks_ms = Clock()

    def tearDown(self):
        stream.socket, stream.select, stream.ticks_ms = self._real

    def scripted(self, *script):
        # A Socket, and a Stream that is not connected yet.
        sock = Socket(self.clock, *script)
        stream.socket = stream.select = sock
        return sock, stream.Stream()

    def connected(self, *script):
        # A Socket, and a Stream that goes over it.
        sock, one = self.scripted(*script)
        one.socket()
        one.connect(("host", 80))
        sock.calls.clear()
        return sock, one

    def fails(self, number, call, *arguments):
        # True when the call raises OSError of that number.
        try:
            call(*arguments)
        except OSError as e:
            return e.errno == number
        return False
