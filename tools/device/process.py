"""
One run of a device's interpreter, from the boot loader to a reset: its console, and the watchdog
that ends it.
"""

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from . import forkserver

_LINE_MAX = 4096  # bytes of a line of the console
_END = 10  # seconds until a killed process has to be gone


class Process:
    """
    arguments, cwd, env: as for subprocess.Popen; on_line: called for each line of the console,
    in another thread; deadline: the file in which `machine.WDT` leaves its deadline.
    """

    def __init__(
        self,
        arguments: list[str],
        cwd: Path,
        env: dict[str, str],
        on_line: Callable[[str], None],
        deadline: Path,
    ):
        self._deadline = deadline
        self._on_line = on_line
        if forkserver.serves(arguments[0]):
            self._process = forkserver.start(arguments, str(cwd), env)
        else:
            self._process = subprocess.Popen(
                arguments,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        self._reader = threading.Thread(target=self._read, name="console", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._process.stdout as console:
            for line in iter(lambda: console.readline(_LINE_MAX), b""):
                self._on_line(line.decode(errors="replace").rstrip())

    def ended(self, wait: float) -> bool:
        """wait: seconds at most until it is. Its console closes with it."""
        self._reader.join(wait)
        return self._process.poll() is not None

    @property
    def late(self) -> bool:
        """The watchdog was not fed in time."""
        return _late(self._deadline)

    def kill(self) -> None:
        """Ends it at once, as a reset does; what it printed is read. Raises TimeoutExpired."""
        self._process.kill()
        self._process.wait(_END)
        if threading.current_thread() is not self._reader:
            self._reader.join(_END)


class Attached:
    """
    A run behind a serial port, which reads what it says; used like a Process. process: a Popen;
    deadline: as of Process.
    """

    def __init__(self, process: subprocess.Popen, deadline: Path):
        self._process, self._deadline = process, deadline

    def ended(self, wait: float) -> bool:
        """wait: seconds at most until it is."""
        try:
            self._process.wait(wait)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def left(self) -> bool:
        """True when it came to its end: somebody sent Ctrl-D. All else kills it."""
        return self._process.poll() == 0

    @property
    def late(self) -> bool:
        """The watchdog was not fed in time."""
        return _late(self._deadline)

    def kill(self) -> None:
        """Ends it at once, as a reset does. Raises TimeoutExpired."""
        self._process.kill()
        self._process.wait(_END)


def _late(path):
    try:
        # machine.py writes MicroPython's ticks_ms(), which is this clock.
        deadline = int.from_bytes(path.read_bytes()[:8], "little")
    except FileNotFoundError:
        return False
    return 0 < deadline < time.monotonic() * 1000
