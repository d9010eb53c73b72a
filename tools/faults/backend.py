"""
The platform of a case: the real platform's own logic over its books, in memory, without a server.

Thread-safe. What it wants to send goes to `publish`.
"""

import hashlib
import threading
import time
from collections.abc import Callable

from tools.platform.books import Books
from tools.platform.logic import Note, Publish, Upgrades
from tools.platform.model import Batch, Device, Firmware, Task

from .scene import NAME, OLD, PRODUCT, SECRET
from .trust import signed

_VALID_S = 3600


class Backend:
    """
    publish: called with (topic, payload bytes), from any thread; url_of: URL of a version.
    Attributes: device; statuses: (batch, text) of each status that a task came to.
    """

    def __init__(self, publish: Callable[[str, bytes], None], url_of: Callable[[str], str]):
        self._publish = publish
        self._logic = Upgrades(Books(lambda firmware, key, until: url_of(firmware.version)))
        self._lock = threading.RLock()
        now = time.time()
        self.device = Device(PRODUCT, NAME, SECRET, NAME, version=OLD, seen=now)
        self._logic.books.enter(self.device)
        self._batches = 0
        self.statuses: list[tuple[int, str]] = []

    def offer(
        self,
        version: str,
        content: bytes,
        policy: str = "standard",
        retries: int = 0,
        interval_s: float = 0.3,
        timeout_s: float = 60,
    ) -> Task:
        """A batch for the device. Raises PlatformError as the platform does."""
        with self._lock:
            self._batches += 1
            number, now = self._batches, time.time()
            digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
            file = f"{version}.bin"
            firmware = Firmware(number, PRODUCT, version, version, file, len(content), digest, now)
            firmware.manifest, firmware.signature = signed(PRODUCT, version, content, number)
            self._logic.books.enter(firmware)
            ends = now + _VALID_S
            batch = Batch(
                number, number, policy, timeout_s, retries, interval_s, now, ends, "token"
            )
            _, effects = self._logic.start(now, batch, [self.device])
            self._carry_out(effects)
            self.tick()
            return self._logic.books.tasks(batch)[0]

    def msg_id(self, task: Task) -> str:
        """Of the present attempt."""
        return self._logic.books.msg_id(task)

    def version_of(self, task: Task) -> str:
        """The version that its batch brings."""
        return self._logic.books.target(task).version

    def attempts(self, version: str) -> int:
        """How often this version was asked for."""
        with self._lock:
            tasks = self._logic.books.tasks_of(self.device)
            return sum(task.attempt + 1 for task in tasks if self.version_of(task) == version)

    def receive(self, name: str, payload: bytes) -> None:
        """A message of the device. name: the last part of its topic."""
        with self._lock:
            self._carry_out(self._logic.receive(time.time(), PRODUCT, NAME, name, payload))

    def tick(self) -> None:
        """Time passes."""
        with self._lock:
            self._carry_out(self._logic.tick(time.time()))

    def _carry_out(self, effects: list) -> None:
        for effect in effects:
            if isinstance(effect, Publish):
                payload = effect.payload
                self._publish(
                    effect.topic, payload.encode() if isinstance(payload, str) else payload
                )
            elif isinstance(effect, Note) and effect.kind == "status":
                self.statuses.append((effect.batch, effect.text))
