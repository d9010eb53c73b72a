"""
The books: devices, firmware, batches and tasks in memory, and who is who among them.

Answers questions, decides nothing. What is in them is what one decision needs (store.Ledger), or
all there is (tests). Source: docs/protocol.md; what is a choice of ours is marked (ours).
"""

from collections.abc import Callable

from tools.platform import course, model
from tools.platform.model import Batch, Device, Firmware, Key, Task
from tools.platform.rollout import Counts

INFORMATION_S = 3600.0  # how long a URL lasts that belongs to no batch
SPARE_S = 3600.0  # how much longer than a device may need

# (firmware, the device that may fetch it, until when) -> URL
UrlOf = Callable[[Firmware, Key, float], str]


class Books:
    """
    url_of: the URL of a Firmware, asked for each time: it ends, and may differ after a restart.
    """

    def __init__(self, url_of: UrlOf):
        self.devices: dict[Key, Device] = {}
        self.firmware: dict[int, Firmware] = {}
        self.batches: dict[int, Batch] = {}
        self._of_batch: dict[int, list[Task]] = {}
        self._of_device: dict[Key, list[Task]] = {}  # oldest first
        self._live: dict[tuple[int, Key], Task] = {}  # not at rest
        self._url_of = url_of

    def enter(self, record: Device | Firmware | Batch | Task):
        """
        Takes in what is new or was stored: a batch before its tasks, tasks as old as their
        batches.
        """
        if isinstance(record, Device):
            self.devices[record.key] = record
        elif isinstance(record, Firmware):
            self.firmware[record.id] = record
        elif isinstance(record, Batch):
            self.batches[record.id] = record
        else:
            self._of_batch.setdefault(record.batch, []).append(record)
            self._of_device.setdefault(record.key, []).append(record)
            self.sort(record)

    def sort(self, task: Task):
        """Puts a task whose status changed among the live ones, or takes it out."""
        if task.at_rest:
            self._live.pop((task.batch, task.key), None)
        else:
            self._live[task.batch, task.key] = task

    def tasks(self, batch: Batch) -> list[Task]:
        """Those that are in these books."""
        return self._of_batch.get(batch.id, [])

    def tasks_of(self, device: Device) -> list[Task]:
        """Oldest first."""
        return self._of_device.get(device.key, [])

    def live(self) -> list[Task]:
        """All tasks that are not at rest."""
        return list(self._live.values())

    def at_rest(self, batch: Batch) -> bool:
        """True when nothing of it runs any more; of an aborted batch some devices may."""
        return all(task.at_rest for task in self.tasks(batch))

    def counts(self, batch: Batch) -> Counts:
        """How the open waves are doing."""
        opened = [task for task in self.tasks(batch) if task.wave <= batch.wave]
        return Counts(
            len(opened),
            sum(task.at_rest for task in opened),
            sum(course.tells_of_firmware(task) for task in opened),
            sum(not task.at_rest for task in self.tasks(batch)),
        )

    def open_wave(self, batch: Batch, now: float):
        """The devices of its last open wave are due now."""
        for task in self.tasks(batch):
            if task.wave == batch.wave and task.status == model.TO_BE_PUSHED:
                task.due = now

    def left_out(self, device: Device, firmware: Firmware) -> str:
        """Why this device cannot take part in a new batch; "" = it can."""
        if device.seen is None:
            return "inactive: it never reported a version"
        if device.version == firmware.version:
            return f"already at {firmware.version}"
        for task in self.tasks_of(device):
            if not task.at_rest and not self.batches[task.batch].aborted:
                return f"in batch {task.batch}"
        return ""

    def match(self, device: Device, msg_id: str, version: object) -> tuple[Task | None, bool]:
        """
        The task that a message is about, and whether it came by an id of the present attempt.

        Any other id, also of an attempt before, goes by the version that the message names, among
        the live tasks (ours): a device may go on under an older id, with the command answered
        only.
        """
        tasks = self.tasks_of(device)
        for task in reversed(tasks):
            if msg_id and msg_id in (self.msg_id(task), task.asked):
                return task, True
        for task in reversed(tasks):
            if not task.at_rest and version == self.target(task).version:
                return task, False
        return None, False

    def hears(self, task: Task, now: float) -> bool:
        """
        True while what the device says counts for this task; one that came to rest may be
        outdated.
        """
        return self._in_force(task) and course.hears(task, self.batches[task.batch], now)

    def waiting(self, device: Device, now: float) -> Task | None:
        """The task that an empty `get` of this device asks for."""
        for task in reversed(self.tasks_of(device)):
            batch = self.batches[task.batch]
            is_open = task.wave <= batch.wave and not self.target(task).removed
            if is_open and self._in_force(task) and course.waits_for_get(task, batch, now):
                return task
        return None

    def target(self, task: Task) -> Firmware:
        return self.firmware[self.batches[task.batch].firmware]

    def msg_id(self, task: Task) -> str:
        """
        Each attempt its own: a device tries an image that failed again only for a command that is
        new.
        """
        return f"{self.batches[task.batch].token}-{task.batch}-{task.attempt}"

    def command(self, task: Task, now: float) -> dict:
        """The data of the upgrade command. Its URL lasts as long as the device may need it."""
        firmware, batch = self.target(task), self.batches[task.batch]
        begins = batch.ends if batch.policy == "silent" else now
        until = max(now, begins) + batch.timeout_s + SPARE_S
        return {
            "policy": batch.policy,
            "size": firmware.size,
            **self._about(firmware, task.key, until),
        }

    def information(self, key: Key, version: str, asks: Key, now: float) -> dict | None:
        """
        The data of the answer to a `get` of a version, the latest upload first; None = there is
        none. key: the device that it is about; asks: the one that will fetch it.
        """
        found = self.newest(key[0], version) if self.knows(key) else None
        return self._about(found, asks, now + INFORMATION_S) if found else None

    def newest(self, product: str, version: str) -> Firmware | None:
        """The last upload of that version."""
        found = [
            item
            for item in self.firmware.values()
            if (item.product, item.version) == (product, version) and not item.removed
        ]
        return found[-1] if found else None

    def knows(self, key: Key) -> bool:
        """True when there is such a device."""
        return key in self.devices

    def _about(self, firmware, key, until):
        signed = {"manifest": firmware.manifest, "signature": firmware.signature}
        return {
            "firmwareVersion": firmware.version,
            "url": self._url_of(firmware, key, until),
            "sign": firmware.sign,
            "signMethod": "Md5",
            **(signed if firmware.signature else {}),
        }

    def _in_force(self, task):
        # A task at rest may come back only while no later batch has taken its place.
        return not task.at_rest or task is self._of_device[task.key][-1]
