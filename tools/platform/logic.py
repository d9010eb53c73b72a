"""
The upgrade logic: what a request, a message or a moment makes of all that is in the books.

Pure: no I/O and no clock. Whoever runs it passes the time in, and carries out what comes back: a
list of `Changed`, `Note` and `Publish`. Store first, then publish. What happens to one device in a
batch is in `course`.
Source: docs/protocol.md; where that leaves a choice, the comment says (ours).
"""

from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass

from tools.platform import course, model, rollout, wire
from tools.platform.books import Books
from tools.platform.model import Batch, Device, Key, PlatformError, Task

_MESSAGE_MAX = 200  # characters of a device's message that are kept


@dataclass
class Publish:
    """Send this payload (str, JSON) to this topic at QoS 1."""

    topic: str
    payload: str


@dataclass
class Changed:
    """This record (Device, Batch or Task) is new, or other than it was: store it."""

    record: object


@dataclass
class Note:
    """A line for the device's log. batch: its number, None = none."""

    key: Key
    batch: int | None
    kind: str
    text: str


class Upgrades:
    """The logic over some books. reply_s: seconds in which the reply to a command must come."""

    def __init__(self, books: Books, reply_s: float = course.REPLY_S):
        self.books = books
        self._reply_s = reply_s
        self._out: list[Publish | Changed | Note] = []

    # What people ask for

    def start(self, now: float, batch: Batch, devices: Iterable[Device]) -> tuple[dict, list]:
        """
        A new batch; the commands go out with the next `tick`. batch: checked by
        `model.check_batch`, its id unused.

        Returns ({identifier: why it was left out}, effects). Raises PlatformError when no device
        is left.
        """
        firmware = self.books.firmware[batch.firmware]
        reasons = [(device, self.books.left_out(device, firmware)) for device in devices]
        left_out = {device.identifier: reason for device, reason in reasons if reason}
        chosen = [device for device, reason in reasons if not reason]
        if not chosen:
            why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise PlatformError(f"no device to upgrade ({why or 'the product has none'})")
        waves = rollout.waves(batch, [device.identifier for device in chosen])
        self._enter(batch)
        for device in chosen:
            wave = waves[device.identifier]
            self._enter(Task(batch.id, *device.key, due=batch.ends if wave else now, wave=wave))
        return left_out, self._effects()

    def abort(self, now: float, batch: Batch, why: str = "") -> list:
        """Stops the devices in the books that are not Pushed yet. Returns effects."""
        self._abort(now, batch, why)
        return self._effects()

    def retry(self, now: float, task: Task) -> list:
        """
        One attempt more for a device that Failed. task: its newest. Returns effects.
        Raises PlatformError when it did not fail, or its batch is over.
        """
        batch = self.books.batches[task.batch]
        device = self.books.devices[task.key]
        if task.status != model.FAILED:
            raise PlatformError(f"device {task.identifier} is {task.status}, it did not fail")
        if batch.aborted or now >= batch.ends:
            raise PlatformError(f"batch {batch.id} is over: upgrade the device by a new one")
        if self.books.target(task).removed:
            raise PlatformError(f"the firmware of batch {batch.id} was removed")
        reason = self.books.left_out(device, self.books.target(task))
        if reason:
            raise PlatformError(f"device {task.identifier}: {reason}")
        with self._change(task):
            course.retry(task, batch, now)
        return self._effects()

    def roll(self, now: float, batch: Batch) -> list:
        """A gradual roll-out goes on, or stops. Returns effects."""
        counts = self.books.counts(batch)
        decision = rollout.decide(batch, counts)
        if decision == rollout.STOP:
            self._abort(now, batch, f"{counts.failed} of the first {counts.open} devices failed")
        elif decision == rollout.NEXT:
            batch.wave += 1
            self.books.open_wave(batch, now)
            self._out.append(Changed(batch))
        return self._effects()

    # What happens

    def receive(
        self, now: float, product: str, identifier: str, name: str, payload: bytes
    ) -> list:
        """
        A message of a device. name: the last part of its topic. Unknown or malformed ones change
        no task.
        """
        device = self.books.devices.get((product, identifier))
        handler = self._HANDLERS.get(name)
        if device is None or handler is None:
            return []
        device.seen = now
        self._out.append(Changed(device))
        try:
            handler(self, now, device, *wire.read(payload))
        except wire.Malformed:
            self._note(device.key, None, name, "not understood")
        return self._effects()

    def tick(self, now: float) -> list:
        """Time passes: sends what is to be sent, ends what has waited too long."""
        for task in self.books.live():
            if now < task.due:
                continue
            with self._change(task):
                if course.overdue(task, self.books.batches[task.batch], now):
                    self._push(task, now)
        return self._effects()

    # The messages of a device

    def _reply(self, now, device, msg_id, code, data):
        self._note(device.key, None, wire.UPGRADE_REPLY, f"{code}")
        task, known = self.books.match(device, msg_id, None)
        if not known or code is None or not self.books.hears(task, now):
            return
        batch = self.books.batches[task.batch]
        with self._change(task):
            if code in wire.ACCEPTING:
                course.accepted(task, batch, now)
            elif code == wire.FAILED_BEFORE and msg_id == task.asked and self._unheard(task):
                # A device cannot tell an attempt that is new by the answer to its `get`, which has
                # that one's msgId; by the command it can (ours).
                self._push(task, now)
            else:
                course.refused(task, batch, now, code, _text(data))

    def _progress(self, now, device, msg_id, code, data):
        status, progress = wire.word(data, "status"), data.get("progress")
        if status not in wire.STATUSES:
            raise wire.Malformed
        if type(progress) is not int or not 0 <= progress <= 100:
            raise wire.Malformed
        if type(data.get("code")) is int:
            code = wire.checked(data["code"])
        said = f"{status} {progress}" + (f" {code}" if code else "")
        self._note(device.key, None, wire.PROGRESS, said)
        if status == wire.FAILED and code == wire.LATE:
            task = self._succeeded_last(device, msg_id, data.get("firmwareVersion"))
            if task:
                with self._change(task):
                    course.went_back(task, code, _text(data))
                return
        task, known = self.books.match(device, msg_id, data.get("firmwareVersion"))
        if task is None or not self.books.hears(task, now):
            return
        batch = self.books.batches[task.batch]
        with self._change(task):
            if status != wire.FAILED:
                course.progressed(task, batch, now, progress)
            elif known or self._tells_more(task, f"{msg_id} {code}"):
                task.outcome = f"{msg_id} {code}"
                task.progress = progress
                course.failed(task, batch, now, code, _text(data))

    def _succeeded_last(self, device, msg_id, version):
        # The newest task of this device, when it Succeeded and this message is about it: by the id
        # of its last attempt, or by the version, as a device may know an older id.
        for task in self.books.tasks_of(device)[-1:]:
            known = msg_id == self.books.msg_id(task) or version == self.books.target(task).version
            if known and task.status == model.SUCCEEDED:
                return task
        return None

    def _tells_more(self, task, outcome):
        # A failure by an id that is not of the present attempt: it counts when the device has
        # replied to this one, and it is no repeat. So a device may go on with an attempt before,
        # and one that comes back late does not spoil a new one.
        return (
            task.status != model.PUSHED
            and task.status in course.WAITS_FOR_DEVICE
            and task.outcome != outcome
        )

    def _version(self, now, device, msg_id, code, data):
        version = wire.word(data, "firmwareVersion")
        if not wire.is_version(version):
            raise wire.Malformed
        device.version = version
        self._note(device.key, None, wire.VERSION, version)
        for task in self.books.tasks_of(device):
            unsettled = not task.at_rest or self.books.hears(task, now)
            if unsettled and self.books.target(task).version == version:
                with self._change(task):
                    course.succeeded(task)

    def _get(self, now, device, msg_id, code, data):
        version = wire.word(data, "firmwareVersion")
        own = {"productKey": device.product, "identifier": device.identifier, **data}
        key = wire.word(own, "productKey"), wire.word(own, "identifier")
        self._note(device.key, None, wire.GET, version)
        if (
            version or key != device.key
        ):  # information, also on behalf of another device: starts nothing
            answer = self.books.information(key, version, device.key, now)
        else:
            answer = None
            task = self.books.waiting(device, now)
            if task:
                with self._change(task):
                    course.pushed(task, now, msg_id, self._reply_s)
                answer = self.books.command(task, now)
        if answer:
            payload = wire.write(msg_id, answer)
        else:
            payload = wire.not_existed(msg_id, version)
        self._publish(device.key, wire.GET_REPLY, payload)

    _HANDLERS = {
        wire.UPGRADE_REPLY: _reply,
        wire.PROGRESS: _progress,
        wire.VERSION: _version,
        wire.GET: _get,
    }

    # What goes out

    def _enter(self, record):
        self.books.enter(record)
        self._out.append(Changed(record))

    def _abort(self, now, batch, why):
        if not batch.aborted:
            batch.aborted, batch.why = True, why
            self._out.append(Changed(batch))
        for task in self.books.tasks(batch):
            with self._change(task):
                course.aborted(task, batch, now)

    @contextmanager
    def _change(self, task):
        # What is done inside changes the task: sort and store it, and note a new status.
        before = task.status
        yield
        self.books.sort(task)
        self._out.append(Changed(task))
        if task.status != before:
            remark = f" ({task.remark})" if task.remark else ""
            self._note(task.key, task.batch, "status", task.status + remark)

    def _unheard(self, task):
        return task.status == model.PUSHED and not self.books.batches[task.batch].aborted

    def _push(self, task, now):
        course.pushed(task, now, "", self._reply_s)
        payload = wire.write(self.books.msg_id(task), self.books.command(task, now))
        self._publish(task.key, wire.UPGRADE, payload)

    def _publish(self, key, name, payload):
        self._out.append(Publish(wire.topic(key, name), payload))

    def _note(self, key, batch, kind, text):
        self._out.append(Note(key, batch, kind, wire.printable(text)[:_MESSAGE_MAX]))

    def _effects(self):
        out, self._out = self._out, []
        return out


def _text(data):
    message = data.get("message")
    return wire.printable(message)[:_MESSAGE_MAX] if type(message) is str else ""
