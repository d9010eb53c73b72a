"""
The serial port of a simulated board: a pseudo-terminal that stays while the device restarts, with
a REPL as a board's behind it, for mpremote and terminals.

What nobody reads is lost, as on a wire. The REPL is that of MicroPython's unix port; a Ctrl-D in
it ends the interpreter, and here becomes what a board makes of it: a soft reset. Source:
shared/runtime/pyexec.c, ports/esp32/main.c.
"""

import os
import random
import select
import subprocess
import termios
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path

from .process import Attached

_CHUNK = 1024  # bytes at a time
_LINE_MAX = 4096
_TICK = 0.1  # seconds between two looks whether it is over
_BUSY_S = 1.0  # for a reader that is there, and slow
_HEARD_S = 5.0  # after what it sent, somebody is there
_RAW, _FRIENDLY = b"raw REPL; CTRL-B to exit\r\n>", b"\r\n>>> "
_CTRL_A = b"\x01"


class Serial:
    """
    on_line: called for each line of the device, in a thread; drop: one byte of so many is lost in
    each direction, None = none is; seed: which ones.

    Attributes: path, what to open; raw, True = the device is in its raw REPL.
    """

    def __init__(self, on_line: Callable[[str], None], drop: int | None = None, seed: int = 0):
        self._on_line, self._drop = on_line, drop
        self._random = random.Random(seed)
        self._outer, self._held = os.openpty()  # held, so that it stays when a client goes
        tty.setraw(self._held)
        os.set_blocking(self._outer, False)
        self.path = os.ttyname(self._held)
        self.raw = False
        self._again = False  # a soft reset in the raw REPL leads back to it
        self._inner: int | None = None
        self._heard = 0.0
        self._line = self._tail = b""
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._pump, name="serial", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Twice is harmless."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join()
            self._unplug()
            os.close(self._outer)
            os.close(self._held)

    def start(self, command: list[str], cwd: Path, env: dict[str, str], deadline: Path):
        """An interpreter behind the port. Returns its Process."""
        inner, theirs = os.openpty()
        tty.setraw(theirs)
        mode = termios.tcgetattr(theirs)
        mode[3] |= termios.ISIG | termios.NOFLSH  # Ctrl-C interrupts what runs
        termios.tcsetattr(theirs, termios.TCSANOW, mode)
        os.set_blocking(inner, False)
        # Of the device, the port is the terminal that controls it; else Ctrl-C would be a byte.
        process = subprocess.Popen(
            ["setsid", "--ctty", *command],
            cwd=cwd,
            env=env | ({"OTA_SIM_RAW": "1"} if self.raw else {}),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        with self._lock:
            self._unplug()
            self._inner, self._again, self._tail = inner, self.raw, b""
        return Attached(process, deadline)

    def say(self, text: str) -> None:
        """What the device says, and no interpreter does."""
        self._out(text.encode())

    def reset(self) -> None:
        """The device was reset, or off: it comes up with its friendly REPL."""
        self.raw = False

    def _unplug(self):
        if self._inner is not None:
            os.close(self._inner)
            self._inner = None

    def _pump(self):
        while not self._over.is_set():
            with self._lock:
                inner = self._inner
            watched = [self._outer] + ([inner] if inner is not None else [])
            try:
                ready, _, _ = select.select(watched, [], [], _TICK)
            except (OSError, ValueError):  # the device restarted just now
                continue
            if self._outer in ready:
                self._in(self._read(self._outer))
            with self._lock:
                if inner in ready and inner == self._inner:
                    data = self._read(inner)
                    if not data:  # the interpreter is gone
                        self._unplug()
                else:
                    data = b""
            if data:
                self._out(data)

    def _in(self, data):
        self._heard = time.monotonic()
        with self._lock:
            if self._inner is not None:
                try:
                    os.write(self._inner, self._spoilt(data))
                except OSError:
                    pass  # nobody reads there: as with a full buffer of a UART

    def _out(self, data):
        self._look(data)
        data = self._spoilt(data)
        end = time.monotonic() + _BUSY_S
        while data:
            try:
                data = data[os.write(self._outer, data) :]
            except BlockingIOError:
                if time.monotonic() < min(end, self._heard + _HEARD_S):
                    select.select([], [self._outer], [], _TICK)
                else:
                    termios.tcflush(self._held, termios.TCIFLUSH)  # nobody reads it

    def _look(self, data):
        # Which REPL it is, and lines for the console.
        self._tail = (self._tail + data)[-_CHUNK - len(_RAW) :]
        raw, friendly = self._tail.rfind(_RAW), self._tail.rfind(_FRIENDLY)
        if raw >= 0 or friendly >= 0:
            self.raw = raw > friendly
            if self.raw:
                self._again = False
            elif self._again:
                self._again = False
                self._send(_CTRL_A)
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._on_line(line.decode(errors="replace").rstrip())
        self._line = self._line[-_LINE_MAX:]

    def _send(self, data):
        with self._lock:
            if self._inner is not None:
                os.write(self._inner, data)

    def _spoilt(self, data):
        if not self._drop:
            return data
        return bytes(byte for byte in data if self._random.randrange(self._drop))

    def _read(self, file):
        try:
            return os.read(file, _CHUNK)
        except OSError:
            return b""
