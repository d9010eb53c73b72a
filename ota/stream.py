"""
Connections that end in time: Stream, on which umqtt and requests both run; Link, an umqtt client
that stays connected; and deadlines, for all of ota/.

Neither library bounds what it does: a server that drips, stalls or never ends a line would hold
the device for ever. So while one of them connects, a Stream stands in the place of its module
`socket` (call). The packets of a Link are umqtt's own (umqtt.simple of the firmware, of any age);
it adds what that lacks. Source: MQTT 3.1.1; docs/limits.md for what umqtt leaves open.
"""

import select
import socket
from errno import ETIMEDOUT
from random import randrange
from time import ticks_add, ticks_diff, ticks_ms

from umqtt import simple

# bytes, of all HTTP headers: more is nothing that a firmware server sends
_HEADERS_MAX = const(8192)
_LINE_MAX = const(2048)  # of it, a line: one string, which needs a piece of heap of that length
# the protocol's bound of one message; what is longer is read and thrown away
_READ_MAX = const(16384)
_PIECE = const(64)  # read at a time: MicroPython makes room for all of it first
# to connect, and for all that the library says and reads until it is done; then for each write
_OPEN_S = const(4)
_TURN_MS = const(50)  # between two looks at what can be written, or read
_PACKET_MS = const(700)  # what begins to come has to be there by then

# Link
_ACK_MS = const(10000)
_PIDS = const(65000)
_WRITE_MS = const(4000)  # for one message


def after(ms):
    """The deadline in ms: int, ticks."""
    return ticks_add(ticks_ms(), ms)


def left(end):
    """Milliseconds to a deadline, 0 when it is over; right for deadlines up to 6 days away."""
    n = ticks_diff(end, ticks_ms())
    return n if n > 0 else 0


class Stream:
    """
    A socket that knows its deadline, and the module `socket` that gives it out.

    Raises OSError ETIMEDOUT, also when the stream ends too early, and what the socket raises.
    """

    sock = tls = None
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
        if self.tls:
            self.sock = sock = self.tls.wrap(sock, self.host)
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
        """All of data, or its first n bytes, before the deadline `end`: ticks."""
        data = memoryview(data)[: n or len(data)]
        while data:
            data = data[self.next(self.sock.write, data) :]

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
            self._poll.ipoll(_TURN_MS)
        raise OSError(ETIMEDOUT)


def call(tls, host, lib, open, *args, **named):
    """
    Calls a function of a library that opens a connection, so that it ends within about 4 s (and
    the time for DNS). tls: a Trust, or None; host: str, whom the certificate has to name.

    Returns (what the function returned, the Stream). Raises what it raises.
    """
    kept = lib.socket
    lib.socket = stream = Stream()
    stream.tls = tls
    stream.host = host
    try:
        return open(*args, **named), stream
    except Exception as e:
        stream.close()  # the libraries do not always
        if tls:
            tls.fault(e)
        raise
    finally:
        lib.socket = kept


class Link(simple.MQTTClient):
    """
    An umqtt client that stays connected: time-outs, ping, back-off with jitter, subscribes again.
    Connection and subscriptions are made by check_msg(), so just go on calling it.

    Arguments as umqtt.simple's MQTTClient. up: int, 0 = not connected, else another number for
    every session; unacked: set of packet ids that were sent at QoS 1 and not acknowledged yet.
    """

    #: the longest wait between two tries to connect, in seconds; large enough to spread a fleet
    #: after an outage
    back_off_s = 300
    #: see above
    up = 0
    #: what ended the last connection, or try: an exception
    error = None
    _wait = 2000

    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        self.keepalive = self.keepalive or 60  # without it a dead connection would go unseen
        # TLS is ours, not that of umqtt: with a checked certificate, and a deadline.
        self.tls = self.ssl
        self.ssl = None
        self.unacked = set()
        self.items = []
        self._due = after(0)  # the next try, or once connected the end of patience

    def subscribe(self, topic, qos=0):
        """
        Makes the next connection subscribe, and every one after it; when connected, that is soon:
        it connects again.
        """
        item = (topic, qos)
        if item not in self.items:
            self.items.append(item)
            if self.up:
                self.close()

    def publish(self, topic, msg, retain=False, qos=0):
        """
        topic, msg: str or bytes. In one write. Returns at once: the packet id at QoS 1 (in
        `unacked` until the broker has it), else None. Raises OSError(-1) when not connected, as
        umqtt does, or what the socket raises.
        """
        if not self.up:
            raise OSError(-1)  # as umqtt says it
        pid = None
        packet = bytearray(2)
        packet += topic
        packet[:2] = (len(packet) - 2).to_bytes(2, "big")
        if qos:
            self.pid = pid = self.pid % _PIDS + 1
            packet += pid.to_bytes(2, "big")
            self.unacked.add(pid)
            self._ack = after(_ACK_MS)
        packet += msg
        size = len(packet)
        head = bytearray((0x30 | qos << 1 | retain,))
        while size > 127:
            head.append(size & 127 | 128)
            size >>= 7
        head.append(size)
        packet[:0] = head
        sock = self.sock
        sock.end = after(_WRITE_MS)
        try:
            sock.write(packet)
        except OSError:
            self.close()
            raise
        return pid

    def check_msg(self):
        """
        One step: connect and subscribe, or take what came. Never raises for the connection: it is
        made again.
        """
        try:
            if self.up:
                sock = self.sock
                if sock.poll(0):
                    if self.wait_msg() == 0x40:  # PUBACK
                        self.unacked.discard(int.from_bytes(sock.read(3)[1:], "big"))
                    self._due = after(self.keepalive * 1500)
                if self.unacked and not left(self._ack) or not left(self._due):
                    self.close()
                elif not left(self._ping):
                    self._ping = after(self.keepalive * 500)
                    self.ping()
            elif not left(self._due):
                self.pid = 0
                call(self.tls, self.server, simple, self.connect)
                for topic in self.items:
                    super().subscribe(*topic)
                self.up = after(0) | 2
                self._wait = 2000
                self._ping = after(0)
                self._due = after(self.keepalive * 1500)
        # umqtt checks replies by assert and index. What a callback raises ends the connection,
        # too: the agent's only queues.
        except Exception as e:
            self.error = e
            self.close()

    def close(self):
        """Ends the connection; the next one comes later."""
        if self.sock:
            self.sock.close()
        self.up = 0
        self.unacked.clear()
        wait = self._wait
        self._wait = min(wait * 2, self.back_off_s * 1000)
        self._due = after(randrange(wait))
