"""The serial console of a device: its last lines, and waiting for one."""

import re
import threading
import time
from collections import deque
from collections.abc import Callable

_LINES = 2000
_LOOK = 0.05  # seconds between two looks at a condition


class Console:
    """name: for messages; on_line: called for each line, in the thread that reads it."""

    def __init__(self, name: str, on_line: Callable[[str], None] | None = None):
        self._name = name
        self._on_line = on_line
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._total = 0  # lines that ever came
        self._passed = 0  # of these, the ones that wait() went past
        self._news = threading.Condition()

    @property
    def lines(self) -> list[str]:
        """The last ones that came."""
        with self._news:
            return list(self._lines)

    def add(self, line: str) -> None:
        with self._news:
            self._lines.append(line)
            self._total += 1
            self._news.notify_all()
        if self._on_line:
            self._on_line(line)

    def wait(self, what: str | Callable[[], object], timeout: float):
        """
        Until a line matches a regular expression, or a function returns something true. Returns
        the match, or what the function returned.

        Lines are gone through once: the next call begins behind the line that this one found.
        timeout: seconds. Raises TimeoutError, with the end of the console.
        """
        until = time.monotonic() + timeout
        while True:
            # A function may end the device, which waits for the last lines: so not under the lock.
            if not isinstance(what, str) and (found := what()):
                return found
            with self._news:
                if isinstance(what, str) and (found := self._find(what)):
                    return found
                left = until - time.monotonic()
                if left <= 0:
                    end = "\n".join(list(self._lines)[-30:])
                    raise TimeoutError(f"{self._name}: no {what!r} in {timeout} s\n{end}")
                self._news.wait(min(left, _LOOK))

    def _find(self, pattern: str) -> re.Match | None:
        first = self._total - len(self._lines)
        for number in range(max(self._passed, first), self._total):
            found = re.search(pattern, self._lines[number - first])
            if found:
                self._passed = number + 1
                return found
        return None
