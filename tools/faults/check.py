"""
The invariant, looked at from outside: what started, what was said, what is in flash.

Shares no code with the agent: the flash is compared with the files themselves, the messages with
each other and with the platform's books.
"""

import hashlib

from tools.platform import model
from tools.platform.model import Task

from .scene import LATER, PLACES, ROWS, SLOT
from .world import Failed, World

SUCCEEDED = "Succeeded"
LATE_FAILURE = 464  # the one code that may follow a success, see docs/codes.md

# Bytes that a device at rest may hold more than the first time: after a trial there are a
# watchdog, what boot.py's guard imported, late.py with slot.py, and the names that all of these
# brought. What grows shows in the soak.
_HEAP = 4096

_BLOCK = 4096  # bytes: what a broken connection may cost, see docs/limits.md


def need(true: object, what: str, world: World) -> None:
    """Raises Failed with the story."""
    if not true:
        raise Failed(f"{what}\n{world.story()}")


def running(world: World) -> str | None:
    """Version of the approved image that lies in the running slot byte for byte, None = none."""
    label = world.device.running
    if label is None:
        return None
    slot = world.device.slot_bytes(label, SLOT)
    found = [name for name, content in world.approved.items() if slot.startswith(content)]
    return found[0] if found else None


def outcome(world: World, task: Task, allowed: set, told: bool = True) -> str | int | None:
    """
    What became of a batch is one of `allowed` ("Succeeded" or codes), true, told and counted once.
    told: False = the journal was lost, so that the version alone has to do. Returns it.
    """
    target = world.backend.version_of(task)
    what = SUCCEEDED if task.status == model.SUCCEEDED else task.code
    need(what in allowed, f"{what} ({task.remark}) is not one of {allowed}", world)
    runs = running(world)
    need((runs == target) == (what == SUCCEEDED), f"{what}, and {runs} runs", world)
    need(world.backend.device.version == runs, "the version told last is another one", world)
    ends = [
        text.split(" (")[0]
        for number, text in world.backend.statuses
        if number == task.batch and text.split(" (")[0] in (*model.AT_REST, model.TO_BE_RETRIED)
    ]
    need(len(ends) == task.attempt + 1, f"counted as {ends}", world)
    said = _outcomes(world)
    refused = any(h.name == "upgrade_reply" and h.code == what for h in world.record.heard)
    if told and not refused:
        need(target in said, f"no outcome of {target} was told", world)
    if target in said:
        _agrees(world, task, what, said[target][-1])
    _never_contradicted(world, said)
    return what


def follow(world: World, version: str = LATER, **batch) -> None:
    """A later good upgrade succeeds; then all that holds at every end, see `end`."""
    task = world.offer(version, **batch)
    world.finish(task)
    outcome(world, task, {SUCCEEDED})
    end(world)


def resumed(world: World, n: int) -> None:
    """
    After a connection that broke at byte n of the file, the next one goes on in the last block
    that was not full.
    """
    starts = [request.start for request in world.web.requests[:2]]
    need(len(starts) == 2 and n - _BLOCK < starts[1] <= n, f"requests from {starts}", world)


def end(world: World) -> None:
    """What was started, what was written, what the heap holds."""
    record = world.record
    boots = record.boots
    for number, boot in enumerate(boots):
        need(boot.label, f"start {number}: no boot", world)
        need(boot.version, f"start {number}: no approved image in {boot.label}", world)
    for one, next_one in zip(boots, boots[1:], strict=False):
        same = one.slots[one.label] == next_one.slots[one.label]
        need(same, f"{one.label} changed while it ran", world)
    last = boots[-1]
    slot = world.device.slot_bytes(last.label, SLOT)
    need(
        hashlib.sha256(slot).digest() == last.slots[last.label], "the running slot changed", world
    )
    counters = world.device.counters
    violations = counters["violations"] - _of_nvs(world)
    need(violations == 0, f"{violations} flash violations", world)
    need(counters["aborts"] == 0, "a write to the running slot", world)
    need(not record.malformed, f"malformed: {record.malformed[:1]}", world)
    need(not world.broker.errors, f"not MQTT: {world.broker.errors[:1]}", world)
    for heard in record.heard:
        if heard.name == "version":
            runs = boots[heard.boots - 1].version
            need(heard.data.get("firmwareVersion") == runs, f"told {heard}, {runs} ran", world)
    grown = record.idles[-1] - record.idles[0]
    need(grown < _HEAP, f"the heap grew by {grown} bytes: {record.idles}", world)


def _of_nvs(world: World) -> int:
    # ESP-IDF looks at the first free entry of a page alone: when a cut tore its table, it programs
    # over states further on, and loses what it puts there. None without a fault.
    if not world.device.fault:
        return 0
    file = world.device.flash_path.with_name("flash.bin.violations")
    if not file.exists():
        return 0
    low = PLACES["nvs"]
    high = low + next(row[4] for row in ROWS if row[0] == "nvs")
    places = (line.split() for line in file.read_text(encoding="ascii").splitlines())
    return sum(int(count) for at, count in places if low <= int(at) < high)


def _outcomes(world: World) -> dict[str, list]:
    # By version: each (msgId, status, code) that was told.
    said: dict[str, list] = {}
    for heard in world.record.heard:
        if heard.name == "progress" and heard.data.get("status") in ("succeeded", "failed"):
            told = heard.msg_id, heard.data["status"], heard.data.get("code")
            said.setdefault(heard.data.get("firmwareVersion"), []).append(told)
    return said


def _agrees(world: World, task: Task, what: str | int | None, told: tuple) -> None:
    # What the device told last is what the platform counted, by an id that the device was given:
    # the command's, or that of its `get` which brought it.
    msg_id, *ended = told
    counted = ["succeeded", None] if what == SUCCEEDED else ["failed", what]
    need(ended == counted, f"told {ended}, counted {counted}", world)
    ids = {heard.msg_id for heard in world.record.heard if heard.name == "get"}
    need(msg_id in ids | {world.backend.msg_id(task)}, f"told by another id, {msg_id!r}", world)


def _never_contradicted(world: World, said: dict[str, list]) -> None:
    # Of each version, of each attempt: one outcome, however often, by one msgId; or by that of the
    # `get` which brought the command once more, when the version got lost behind the outcome.
    asked = {heard.msg_id for heard in world.record.heard if heard.name == "get"}
    for version, told in said.items():
        attempts = world.backend.attempts(version)
        early = {outcome for outcome in told if outcome[2] != LATE_FAILURE}
        own = [outcome for outcome in early if outcome[0] not in asked]
        need(len(own) <= attempts, f"{version}: {told}", world)
        need(len({outcome[1:] for outcome in early}) <= attempts, f"{version}: {told}", world)
        ids = {outcome[0] for outcome in early}
        need(len(ids) == len(early), f"{version}: {told}", world)
        late = [outcome[2] == LATE_FAILURE for outcome in told]
        need(attempts > 1 or late == sorted(late), f"{version}: {told}", world)
