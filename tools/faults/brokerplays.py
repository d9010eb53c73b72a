"""
What a case of the group "broker" plays, from power on to the upgrade's outcome. Each raises
world.Failed.
"""

import time
from collections.abc import Callable
from functools import partial

from tools.platform import wire
from tools.platform.model import Task

from . import check
from . import linkfaults as lf
from .check import SUCCEEDED, need
from .scene import NEW, SECRET
from .upgrade import begin
from .world import World, call

NOT_CONNECTED = 462  # the new image never reached the platform

_FEW = 3  # connections, until the broker is good again
_SILENT_S = 3
_DOWN_S = 1.5


def _upgrade(world: World, task: Task, allowed: set) -> None:
    world.finish(task)
    check.outcome(world, task, allowed)


def disturbed(world: World, moment: str, fault: lf.Fault) -> Task:
    """An upgrade that succeeds although the fault comes at the moment."""
    when = lf.Moment(world, moment, fault)
    when.arm()
    if moment == "command":
        world.device.start()
        world.settle()
        task = world.offer()
    else:
        task = begin(world)
    when.now()
    _upgrade(world, task, {SUCCEEDED})
    when.passed()
    starts = [boot.version for boot in world.record.boots]
    need(len(starts) == 2, f"started {starts}", world)
    return task


def junk(world: World, moment: str, name: str) -> None:
    """One of JUNK comes at the moment; its command is not taken."""
    disturbed(world, moment, lf.JUNK[name])
    told = [h.data for h in world.record.heard if h.name == "progress"]
    taken = [data for data in told if data["firmwareVersion"] == lf.NEVER]
    need(not taken, f"took {taken}", world)


def at_first(world: World, name: str, value: object) -> None:
    """
    An attribute of the broker is so for the first connections of the device; or for the first one,
    when it can live with it.
    """
    good = getattr(world.broker, name)
    setattr(world.broker, name, value)
    world.device.start()
    logins = world.broker.logins
    world.until(lambda: len(logins) >= _FEW or world.record.idles, "it connects, or tries again")
    setattr(world.broker, name, good)
    _upgrade(world, world.offer(), {SUCCEEDED})


def silent_at_first(world: World) -> None:
    """Connections are taken, and nothing is said to them."""
    world.broker.silent = True
    world.device.start()
    world.until(lambda: world.broker.connections, "the device tries")
    time.sleep(_SILENT_S)
    world.broker.silent = False
    _upgrade(world, world.offer(), {SUCCEEDED})


def down_at_first(world: World) -> None:
    """It comes up when the device has tried."""
    call(world.broker.stop())
    task = world.offer()
    world.device.start()
    time.sleep(_DOWN_S)
    need(world.record.boots, "the device did not start", world)
    call(world.broker.start())
    _upgrade(world, task, {SUCCEEDED})


def _in_trial(world: World, fault: lf.Fault, mend: Callable[[], None], allowed: set) -> None:
    # As long as the new image is on trial, which goes back.
    when = lf.Moment(world, "restart", fault)
    when.arm()
    task = begin(world)
    world.until(lambda: len(world.record.boots) > 2 or task.at_rest, "it goes back, or confirms")
    mend()
    _upgrade(world, task, allowed)
    when.passed()


def bad_in_trial(world: World, name: str, value: object, allowed: set) -> None:
    """An attribute of the broker is so while the new image is on trial."""
    good = getattr(world.broker, name)
    fault = lf.setting(name, value)
    _in_trial(world, fault, lambda: setattr(world.broker, name, good), allowed)


def gone_in_trial(world: World) -> None:
    """The broker is down while the new image is on trial."""
    _in_trial(world, lf.stop, lambda: call(world.broker.start()), {NOT_CONNECTED})


def deaf_in_trial(world: World) -> None:
    """The new image subscribes, and after that nothing comes through."""
    told = world.broker.on_session

    def session(up: bool) -> None:
        told(up)
        world.broker.silent = len(world.record.boots) == 2

    async def arm(world: World) -> None:
        world.broker.on_session = session

    _in_trial(world, arm, lambda: setattr(world.broker, "silent", False), {NOT_CONNECTED})


def _commands(world: World, retain: bool = False, change: Callable = bytes) -> list[bytes]:
    # The platform's commands from now on, as they went out; may be kept by the broker, or changed.
    publish, sent = world.broker.publish, []

    def spy(topic: str, payload: bytes, qos: int = 1) -> None:
        if topic == lf.COMMANDS:
            sent.append(payload := change(payload))
        publish(topic, payload, qos, retain=retain and topic == lf.COMMANDS)

    world.broker.publish = spy
    return sent


def _need_one(world: World) -> None:
    # The image was fetched once, and started once.
    fetched = sum(request.path == f"/{NEW}.bin" for request in world.web.requests)
    need(fetched == 1, f"fetched {fetched} times", world)


def retained(world: World, app: str | None, result: str | int) -> None:
    """The broker keeps the command; each start of the device finds it. result: of the upgrade."""
    _commands(world, retain=True)
    content = world.serve(NEW, app=app)
    world.device.start()
    world.settle()
    task = world.backend.offer(NEW, content)
    _upgrade(world, task, {result})
    for starts in range(len(world.record.boots), len(world.record.boots) + 3):
        heard = len(world.record.heard)
        world.device.power_cut()
        world.device.start()
        world.until(lambda since=heard: _codes(world, since), "a reply to the retained command")
        world.settle()
        need(len(world.record.boots) == starts + 1, "it started anew", world)
    check.outcome(world, task, {result})
    _need_one(world)


def _codes(world: World, since: int = 0, msg_id: str | None = None) -> list[int]:
    # Of the replies to commands.
    heard = [h for h in world.record.heard[since:] if h.name == "upgrade_reply"]
    return [h.code for h in heard if msg_id in (None, h.msg_id)]


def redelivered(world: World) -> None:
    """The broker sends each message twice, the second time with DUP."""
    world.broker.redeliver = True
    world.device.start()
    world.settle()
    task = world.offer()
    msg_id = world.backend.msg_id(task)
    _upgrade(world, task, {SUCCEEDED})
    codes = _codes(world, 0, msg_id)
    need(codes == [200, 200], f"replied {codes}", world)
    _need_one(world)


def twice(world: World, moment: str) -> None:
    """The platform sends the command again at the moment."""
    sent = _commands(world)

    async def again(world: World) -> None:
        world.broker.publish(lf.COMMANDS, sent[0])

    when = lf.Moment(world, moment, again)
    when.arm()
    world.device.start()
    world.settle()
    task = world.offer()
    msg_id = world.backend.msg_id(task)
    when.now()
    _upgrade(world, task, {SUCCEEDED})
    when.passed()
    if moment != "restart":  # what comes then may get lost in it
        world.until(lambda: len(_codes(world, 0, msg_id)) >= 2, "a reply to each")
        world.settle()
        codes = _codes(world, 0, msg_id)
        need(codes == [200, 200], f"replied {codes}", world)
    _need_one(world)


def lost_at_start(world: World) -> None:
    """The PUBACK of the first message, the version, gets lost."""
    world.broker.lose_puback = 1
    world.device.start()
    world.settle()
    need(not world.broker.lose_puback, "no PUBACK was lost", world)
    _upgrade(world, world.offer(), {SUCCEEDED})


def lost(world: World, moment: str, count: int) -> None:
    """So many PUBACKs get lost from the moment on."""
    disturbed(world, moment, lf.setting("lose_puback", count))
    need(not world.broker.lose_puback, "fewer PUBACKs were lost", world)


def swallowed(world: World) -> None:
    """
    The broker has acknowledged the version of the new image, and dies before the platform hears
    of it. The device's next question brings it the command for the version that runs: time to say
    which one that is, for nothing else makes a success.
    """
    hear, lost = world.broker.on_message, []

    def swallow(topic: str, payload: bytes) -> None:
        if topic.endswith(wire.VERSION) and len(world.record.boots) == 2 and not lost:
            lost.append(payload)
        else:
            hear(topic, payload)

    world.broker.on_message = swallow
    task = begin(world)
    world.finish(task)
    need(lost, "no version was lost", world)
    need(task.status == SUCCEEDED, f"{task.status} ({task.remark})", world)
    need(check.running(world) == NEW, f"{check.running(world)} runs", world)
    # Two commands, two outcomes, for one attempt: not what the other checks count.
    world.record.heard.clear()


def outcome_lost(world: World) -> None:
    """The connection ends before the broker has taken the outcome."""
    hear, lost = world.broker.on_message, []

    def message(topic: str, payload: bytes) -> None:
        if b'"succeeded"' in payload and not lost:
            lost.append(payload)
            world.broker.drop()
        else:
            hear(topic, payload)

    world.broker.on_message = message
    _upgrade(world, begin(world), {SUCCEEDED})
    need(lost, "no outcome was lost", world)


def padded(size: int, change: Callable[[bytes, int], bytes], world: World) -> None:
    """The command is so long, and good. change: makes it so, from payload and size."""
    sent = _commands(world, change=partial(change, size=size))
    world.device.start()
    world.settle()
    _upgrade(world, world.offer(), {SUCCEEDED})
    need(len(sent[0]) == size, f"{len(sent[0])} bytes", world)


def blanks(payload: bytes, size: int) -> bytes:
    """Blanks at its end."""
    return payload.ljust(size)


def another_key(payload: bytes, size: int) -> bytes:
    """A long text that nobody wants."""
    head = payload[:-1] + b', "notes": "'
    return head.ljust(size - 2, b".") + b'"}'


def wrong_password(world: World) -> None:
    """Mosquitto does not know the device yet."""
    task = world.offer()
    world.device.start()
    world.until(lambda: world.broker.log().count("not authorised") >= _FEW, "it is refused")
    call(world.broker.stop())
    world.broker.password = SECRET
    call(world.broker.start())
    _upgrade(world, task, {SUCCEEDED})
