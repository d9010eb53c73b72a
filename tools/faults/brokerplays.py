"""
What a case of the group "broker" plays, from power on to the upgrade's outcome. Each raises
world.Failed.
"""

import time
from collections.abc import Callable

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


def finish(world: World, task: Task, allowed: set) -> None:
    """Until the upgrade's outcome, which is one of `allowed`."""
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
    finish(world, task, {SUCCEEDED})
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
    finish(world, world.offer(), {SUCCEEDED})


def silent_at_first(world: World) -> None:
    """Connections are taken, and nothing is said to them."""
    world.broker.silent = True
    world.device.start()
    world.until(lambda: world.broker.connections, "the device tries")
    time.sleep(_SILENT_S)
    world.broker.silent = False
    finish(world, world.offer(), {SUCCEEDED})


def down_at_first(world: World) -> None:
    """It comes up when the device has tried."""
    call(world.broker.stop())
    task = world.offer()
    world.device.start()
    time.sleep(_DOWN_S)
    need(world.record.boots, "the device did not start", world)
    call(world.broker.start())
    finish(world, task, {SUCCEEDED})


def _in_trial(world: World, fault: lf.Fault, mend: Callable[[], None], allowed: set) -> None:
    # As long as the new image is on trial, which goes back.
    when = lf.Moment(world, "restart", fault)
    when.arm()
    task = begin(world)
    world.until(lambda: len(world.record.boots) > 2 or task.at_rest, "it goes back, or confirms")
    mend()
    finish(world, task, allowed)
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


def lost_at_start(world: World) -> None:
    """The PUBACK of the first message, the version, gets lost."""
    world.broker.lose_puback = 1
    world.device.start()
    world.settle()
    need(not world.broker.lose_puback, "no PUBACK was lost", world)
    finish(world, world.offer(), {SUCCEEDED})


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
    finish(world, begin(world), {SUCCEEDED})
    need(lost, "no outcome was lost", world)


def wrong_password(world: World) -> None:
    """Mosquitto does not know the device yet."""
    task = world.offer()
    world.device.start()
    world.until(lambda: world.broker.log().count("not authorised") >= _FEW, "it is refused")
    call(world.broker.stop())
    world.broker.password = SECRET
    call(world.broker.start())
    finish(world, task, {SUCCEEDED})
