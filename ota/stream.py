"""
A TCP connection of which every call ends in time: umqtt and requests both run on it. And
deadlines, for all of ota/.

Neither library bounds what it does: a server that drips, stalls or never ends a line would hold
the device for ever. So while one of them connects, a Stream stands in the place of its module
`socket` (call). Never does TLS, never retries.
"""

import select
import socket
from errno import ETIMEDOUT
from time import ticks_add, ticks_diff, ticks_ms

# bytes, of all HTTP headers: more is nothing that a firmware server sends
_HEADERS_MAX = const(8192)
_LINE_MAX = const(2048)  # of it, a line: one string, which needs a piece of heap of that length
# the protocol's bound of one message; what is longer is read and thrown away
_READ_MAX = const(16384)
_PIECE = const(64)  # read at a time: MicroPython makes room for all of it first
# to connect, and for all that the library says and reads until it is done; then for each write
_OPEN_S = const(4)
_PACKET_MS = const(700)  # what begins to come has to be there by then


def after(ms):
    """The deadline in ms: int, ticks."""
    return ticks_add(ticks_ms(), ms)


def left(end):
    """Milliseconds to a deadline, 0 when it is over; right for deadlines up to 6 days away."""
    return max(ticks_diff(end, ticks_ms()), 0)


class Stream:
    """
    A socket that knows its deadline, and the module `socket` that gives it out.

    Raises OSError ETIMEDOUT, also when the stream ends too early, and what the socket raises.
    """

    sock = None
    size = _HEADERS_MAX

    def __getattr__(self, key):
        return getattr(socket, key)

    def socket(self, *_):
        self.sock = socket.socket()
        return self

    def connect(self, *args):
        self.end = after(_OPEN_S * 1000)
        sock = self.sock
        sock.settimeout(_OPEN_S)
        sock.connect(*args)
        sock.setblocking(False)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def settimeout(self, _):  # the libraries' own ideas of time do not count
        pass

    setblocking = settimeout

    def poll(self, ms):
        """
        True when there is something to read, or the other end is gone; waits at most ms. What is
        read then ends within 0.7 s.
        """
        self.end = after(_PACKET_MS)
        for _ in self._poll.ipoll(ms):  # poll() would make a list
            return True

    def read(self, n):
        """
        Returns exactly n bytes (a bytearray when they are many), or b"" in the place of more than
        16 KiB, or than have room.
        """
        data = b""
        try:
            if n <= _READ_MAX:  # at once: grown piece by piece it would need the room twice
                data = bytearray(n)
        except MemoryError:
            pass
        at = 0
        while at < n:
            part = self.next(self.sock.read, min(n - at, _PIECE))
            end = at + len(part)
            if data:
                data[at:end] = part
            at = end
        return data if n > _PIECE else bytes(data)

    def readline(self):
        """
        A line of the HTTP headers, whole: the status, one that an upgrade needs, its name in small
        letters, or the end. ValueError when they are too long.
        """
        while True:
            first = self.size == _HEADERS_MAX
            line = b""
            while line[-1:] != b"\n":
                part = self.next(self.sock.readline, _PIECE)
                line += part
                self.size -= len(part)
                if self.size < 0 or len(line) > _LINE_MAX:
                    raise ValueError
            name = line[:8].lower()
            if name == b"location":  # so that requests does not know it, and follow it
                return name + line[8:]
            if name == b"content-":
                return line.lower()
            if first or line[:1] in b"\r\nT":  # Transfer-Encoding: requests says no
                return line

    def write(self, data, n=None):
        sock = self.sock
        sock.settimeout(_OPEN_S)
        n = n or len(data)
        if sock.write(data, n) != n:
            raise OSError(ETIMEDOUT)
        sock.setblocking(False)

    def close(self):
        if self.sock:
            self.sock.close()

    def next(self, read, n):
        """What comes next, at most n bytes. OSError ETIMEDOUT also when nothing comes any more."""
        while left(self.end):
            got = read(n)
            if got:
                return got
            if got is not None:
                break
            self._poll.ipoll(left(self.end))
        raise OSError(ETIMEDOUT)


def call(lib, open, *args, **named):
    """
    Calls a function of a library that opens a connection, so that it ends within about 4 s (and
    the time for DNS).

    Returns (what the function returned, the Stream). Raises what it raises.
    """
    kept = lib.socket
    lib.socket = stream = Stream()
    try:
        return open(*args, **named), stream
    except Exception:
        stream.close()  # the libraries do not always
        raise
    finally:
        lib.socket = kept
