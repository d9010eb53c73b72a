"""
What stands around the device package in tests: a clock that moves when told, a network of scripted
connections, a machine that only notes. agents.py has what the agent needs besides.

No test sleeps or opens a real connection. Time and network are exchanged in ota/stream.py, where
all of ota/ takes them from.
"""

import gc
import sys
import time
import unittest
from errno import ECONNREFUSED
from hashlib import md5

import bootrecords
import machine
from esp32 import NVS

import ota
import ota.stream

SIGN = "0123456789abcdef0123456789abcdef"
URL = "http://host:8080/file.bin"
END = b""  # in a script: the other end closes

# Taken before a test module is loaded, and free while a test runs: what is in use lies around it,
# so that a test finds its heap in one piece, as a device that has just started does.
_ROOM = 20480
_room = [bytearray(_ROOM)]

_SILENCE_MS = 60000  # of a script that is through
_PAST_START_MS = 1000


class Settings:
    """What a Download and an Upgrade need of the agent."""

    tries = 5
    stall_s = 30
    total_s = 3600
    hash = md5
    trust = None


class Reset(Exception):
    """machine.reset() was called: on a device nothing comes after it."""


class Machine:
    """
    Stands for the module machine. resets: how many; timeouts: ms, of the watchdogs; fed; cause:
    what reset_cause() says.
    """

    cause = 1  # machine.PWRON_RESET

    def __init__(self):
        self.resets = self.fed = 0
        self.timeouts = []

    def reset(self):
        self.resets += 1
        raise Reset

    def reset_cause(self):
        return self.cause

    def WDT(self, id=0, timeout=5000):
        self.timeouts.append(timeout)
        return self

    def feed(self):
        self.fed += 1


class Clock:
    """Ticks that begin shortly before they wrap, so that all that counts on them is shown."""

    def __init__(self):
        self.now = time.ticks_add(0, -_PAST_START_MS)

    def ticks_ms(self):
        return self.now

    def advance(self, ms):
        self.now = time.ticks_add(self.now, ms)

    def since(self, before):
        """ms that went by. before: ticks."""
        return time.ticks_diff(self.now, before)


class Net:
    """
    Stands for the modules socket and select. script() says what the next connection brings;
    without a script it is refused. sockets: those that were asked for; asked: (host, port) of
    each name that was looked up; unknown: an error that the look-up raises.
    """

    SOCK_STREAM = 1
    POLLIN = 1

    def __init__(self, clock):
        self.clock = clock
        self.scripts = []
        self.sockets = []
        self.asked = []
        self.unknown = None

    def script(self, *items):
        """
        bytes: come at once; int: ms of silence; an exception: raised (the first one by
        connect); END; an iterator: brings items; a function: called with the Socket when it is
        reached, returns an item. After the last item: silence.
        """
        self.scripts.append(list(items))

    def getaddrinfo(self, host, port, *_):
        self.asked.append((host, port))
        if self.unknown:
            raise self.unknown
        return [(2, 1, 0, "", (host, port))]

    def socket(self, *_):
        items = self.scripts.pop(0) if self.scripts else [OSError(ECONNREFUSED)]
        self.sockets.append(Socket(self.clock, items))
        return self.sockets[-1]

    def poll(self):
        return _Poll()


class _Poll:
    def register(self, sock, _):
        self._sock = sock

    def poll(self, ms):
        return self.ipoll(ms)

    def ipoll(self, ms):
        # Silence is what time passes in.
        sock = self._sock
        if not sock.ready():
            sock.clock.advance(min(ms, sock.silence()))
        return [(sock, 1)] if sock.ready() else []


class Socket:
    """
    One connection. sent: bytearray, what was written; closed; fault: raised by write; fills:
    readinto goes on while there is something, as that of MicroPython does, not item by item.
    """

    fills = False

    def __init__(self, clock, items):
        self.clock = clock
        self.sent = bytearray()
        self.closed = False
        self.fault = None
        self.full = False  # write takes nothing
        self.takes = 1 << 30  # bytes at a time
        self._items = items
        self._data = b""
        self._until = None

    def comes(self, *items):
        """More of them, see Net.script."""
        self._items.extend(items)

    def connect(self, address):
        self.address = address
        if self._items and isinstance(self._items[0], Exception):
            raise self._items.pop(0)

    def settimeout(self, seconds):
        self.timeout = seconds

    def setblocking(self, flag):
        self.timeout = None if flag else 0

    def ready(self):
        """True when a read would return at once."""
        while not self._data and self._items:
            item = self._items[0]
            if isinstance(item, int):
                if self._until is None:
                    self._until = time.ticks_add(self.clock.now, item)
                if time.ticks_diff(self._until, self.clock.now) > 0:
                    return False
                self._until = None
                self._items.pop(0)
            elif isinstance(item, bytes):
                if not item:
                    return True
                self._data = self._items.pop(0)
            elif isinstance(item, Exception):
                return True
            elif hasattr(item, "__next__"):
                try:
                    self._items.insert(0, next(item))
                except StopIteration:
                    self._items.pop(0)
            else:
                self._items[0] = item(self)
        return bool(self._data)

    def silence(self):
        """ms until something comes."""
        if self._until is None:
            return _SILENCE_MS
        return time.ticks_diff(self._until, self.clock.now)

    def read(self, n):
        if not self.ready():
            return None
        if not self._data:
            if not self._items[0]:
                return b""
            raise self._items.pop(0)
        data, self._data = self._data[:n], self._data[n:]
        return data

    def readinto(self, buf, n=None):
        n = min(n or len(buf), len(buf))
        data = self.read(n)
        if data is None:
            return None
        at = len(data)
        buf[:at] = data
        while self.fills and data and at < n and self.ready() and self._data:
            data = self.read(n - at)
            buf[at : at + len(data)] = data
            at += len(data)
        return at

    def readline(self, n):
        if self.ready() and b"\n" in self._data[:n]:
            n = self._data.index(b"\n") + 1
        return self.read(n)

    def write(self, data):
        if self.fault:
            raise self.fault
        if self.timeout is None:
            raise AssertionError("a write that may block")
        if self.full:
            self.clock.advance(10)  # the test stands still, the device does not
            return None
        n = min(len(data), self.takes)
        self.sent += bytes(data[:n])
        return n

    def close(self):
        self.closed = True


class Case(unittest.TestCase):
    """A test with clock, net and machine exchanged, boot records put back, an empty journal."""

    def setUp(self):
        _room.clear()
        stream = sys.modules["ota.stream"]
        self.clock = Clock()
        self.net = Net(self.clock)
        self.machine = Machine()
        self._kept = stream.ticks_ms, stream.socket, stream.select
        stream.socket = stream.select = self.net
        self._tick(self.clock.ticks_ms)
        self._module = machine
        self._exchange(self.machine)
        self._records = bootrecords.read()
        forget()

    def _tick(self, ticks_ms):
        # download.py has its own name for it, from stream.py when it is loaded.
        for name in ("ota.stream", "ota.download"):
            if name in sys.modules:
                sys.modules[name].ticks_ms = ticks_ms

    def tearDown(self):
        stream = sys.modules["ota.stream"]
        ticks_ms, stream.socket, stream.select = self._kept
        self._tick(ticks_ms)
        self._exchange(self._module)
        if sys.modules.pop("ota.late", None):  # it would keep the machine of this test
            del sys.modules["ota"].late
        bootrecords.write(*self._records)
        forget()
        for name in [name for name in self.__dict__ if name[0] != "_"]:
            delattr(self, name)
        gc.collect()
        try:
            _room.append(bytearray(_ROOM))
        except MemoryError:  # then the next one has to do with pieces
            pass

    def _exchange(self, module):
        # By name for what is loaded later, by attribute for what has it already.
        sys.modules["machine"] = module
        if "ota.agent" in sys.modules:
            sys.modules["ota.agent"].machine = module

    def assertCode(self, code, call, *args, **named):
        """The call raises OTAError with that code."""
        try:
            call(*args, **named)
        except ota.OTAError as e:
            self.assertEqual(e.code, code)
        else:
            self.fail("no OTAError %d" % code)


def data(
    version="2.0", sign=SIGN, policy="standard", size=4096, url="http://host:8080/file.bin", **more
):
    """The data of a command. size, policy None: left out."""
    found = {"firmwareVersion": version, "url": url, "sign": sign, "signMethod": "Md5"}
    if policy is not None:
        found["policy"] = policy
    if size is not None:
        found["size"] = size
    found.update(more)
    return found


def forget():
    """Empties the journal."""
    nvs = NVS("ota")
    for key in "ab":
        try:
            nvs.erase_key(key)
        except OSError:
            pass
    nvs.commit()
