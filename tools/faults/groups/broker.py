"""
The broker misbehaves: scripted at its worst, and mosquitto as far as a real one can be brought to.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.faults import check, mosquitto
from tools.faults import linkfaults as lf
from tools.faults.broker import Broker
from tools.faults.case import Group
from tools.faults.check import SUCCEEDED, need
from tools.faults.scene import NEW, SCENES, SECRET
from tools.faults.upgrade import ROLLED_BACK, begin
from tools.faults.world import OPTIONS, Failed, World, call
from tools.platform.model import Task

NOT_CONNECTED = 462  # the new image never reached the platform

_MISSING = "mosquitto is not installed: make mosquitto as root, or apt-get install mosquitto"
_FEW = 3  # connections, until the broker is good again
_SILENT_S = 3
_DOWN_S = 1.5
_LONG_TEXT = 4096  # bytes of a message
_SCRIPTED, _REAL = "scripted", "mosquitto"
_BOTH = (_SCRIPTED, _REAL)
# A PUBACK that does not come costs 10 s each time: longer than other trials last.
_SLOW = OPTIONS.replace("trial_s=5", "trial_s=40")
_BAD = "import machine\nmachine.reset()\n"  # never comes to the agent


def _upgrade(world: World, task: Task, allowed: set) -> None:
    world.finish(task)
    check.outcome(world, task, allowed)


def _disturbed(world: World, moment: str, fault: lf.Fault, retries: int = 0) -> Task:
    # An upgrade that succeeds although the fault comes at the moment. retries: of the batch.
    when = lf.Moment(world, moment, fault)
    when.arm()
    if moment == "command":
        world.device.start()
        world.settle()
        task = world.offer(retries=retries)
    else:
        task = begin(world, retries=retries)
    when.now()
    _upgrade(world, task, {SUCCEEDED})
    when.passed()
    starts = [boot.version for boot in world.record.boots]
    need(len(starts) == 2, f"started {starts}", world)
    return task


def _junk(world: World, moment: str, name: str) -> None:
    _disturbed(world, moment, lf.JUNK[name])
    told = [h.data for h in world.record.heard if h.name == "progress"]
    taken = [data for data in told if data["firmwareVersion"] == lf.NEVER]
    need(not taken, f"took {taken}", world)


def _at_first(world: World, name: str, value: object) -> None:
    # The first connections of the device find it so; or the first one, when it can live with it.
    good = getattr(world.broker, name)
    setattr(world.broker, name, value)
    world.device.start()
    logins = world.broker.logins
    world.until(lambda: len(logins) >= _FEW or world.record.idles, "it connects, or tries again")
    setattr(world.broker, name, good)
    _upgrade(world, world.offer(), {SUCCEEDED})


def _silent_at_first(world: World) -> None:
    world.broker.silent = True
    world.device.start()
    world.until(lambda: world.broker.connections, "the device tries")
    time.sleep(_SILENT_S)
    world.broker.silent = False
    _upgrade(world, world.offer(), {SUCCEEDED})


def _down_at_first(world: World) -> None:
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


def _bad_in_trial(world: World, name: str, value: object, allowed: set) -> None:
    good = getattr(world.broker, name)
    fault = lf.setting(name, value)
    _in_trial(world, fault, lambda: setattr(world.broker, name, good), allowed)


def _gone_in_trial(world: World) -> None:
    _in_trial(world, lf.stop, lambda: call(world.broker.start()), {NOT_CONNECTED})


def _deaf_in_trial(world: World) -> None:
    # It subscribes, and after that nothing comes through.
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


def _retained(world: World, app: str | None, result: str | int) -> None:
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


def _redelivered(world: World) -> None:
    # The broker sends each message twice, the second time with DUP.
    world.broker.redeliver = True
    world.device.start()
    world.settle()
    task = world.offer()
    msg_id = world.backend.msg_id(task)
    _upgrade(world, task, {SUCCEEDED})
    codes = _codes(world, 0, msg_id)
    need(codes == [200, 200], f"replied {codes}", world)
    _need_one(world)


def _twice(world: World, moment: str) -> None:
    # The platform sends it again at the moment.
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


def _lost_at_start(world: World) -> None:
    world.broker.lose_puback = 1
    world.device.start()
    world.settle()
    need(not world.broker.lose_puback, "no PUBACK was lost", world)
    _upgrade(world, world.offer(), {SUCCEEDED})


def _lost(world: World, moment: str, count: int) -> None:
    _disturbed(world, moment, lf.setting("lose_puback", count))
    need(not world.broker.lose_puback, "fewer PUBACKs were lost", world)


def _padded(world: World, size: int, change: Callable[[bytes, int], bytes]) -> None:
    # The command is so long, and good.
    sent = _commands(world, change=partial(change, size=size))
    world.device.start()
    world.settle()
    _upgrade(world, world.offer(), {SUCCEEDED})
    need(len(sent[0]) == size, f"{len(sent[0])} bytes", world)


def _blanks(payload: bytes, size: int) -> bytes:
    return payload.ljust(size)


def _another_key(payload: bytes, size: int) -> bytes:
    head = payload[:-1] + b', "notes": "'
    return head.ljust(size - 2, b".") + b'"}'


def _wrong_password(world: World) -> None:
    task = world.offer()
    world.device.start()
    world.until(lambda: world.broker.log().count("not authorised") >= _FEW, "it is refused")
    call(world.broker.stop())
    world.broker.password = SECRET
    call(world.broker.start())
    _upgrade(world, task, {SUCCEEDED})


@dataclass(frozen=True)
class _Row:
    # where: brokers that can do it; password: see Mosquitto.
    play: Callable[[World], object]
    where: tuple[str, ...] = (_SCRIPTED,)
    options: str = OPTIONS
    password: str | None = None


def _rows() -> dict[str, _Row]:
    rows = {
        "down": _Row(_down_at_first, _BOTH),
        "silent": _Row(_silent_at_first),
        "gone/in-trial": _Row(_gone_in_trial, _BOTH),
        "deaf/in-trial": _Row(_deaf_in_trial),
        "wrong-password": _Row(_wrong_password, (_REAL,), password="another"),
        "retained/good": _Row(partial(_retained, app=None, result=SUCCEEDED), _BOTH),
        "retained/bad": _Row(partial(_retained, app=_BAD, result=ROLLED_BACK), _BOTH),
        "redelivered": _Row(_redelivered),
        "padded/blanks": _Row(partial(_padded, size=lf.MESSAGE_MAX, change=_blanks), _BOTH),
        # A text costs its length once more when it is read.
        "padded/key": _Row(partial(_padded, size=_LONG_TEXT, change=_another_key), _BOTH),
        "lost-puback/start": _Row(_lost_at_start),
    }
    for moment in lf.MOMENTS:
        rows[f"twice/{moment}"] = _Row(partial(_twice, moment=moment), _BOTH)
        for fault in (lf.restart, lf.takeover, lf.takeovers):
            row = _Row(partial(_disturbed, moment=moment, fault=fault), _BOTH)
            rows[f"{fault.__name__}/{moment}"] = row
        rows[f"drop/{moment}"] = _Row(partial(_disturbed, moment=moment, fault=lf.drop))
        # What was lost comes again after 10 s, when the platform has waited for the reply in vain.
        silence = partial(_disturbed, moment=moment, fault=lf.silence, retries=1)
        rows[f"silence/{moment}"] = _Row(silence)
        for name in lf.JUNK:
            where = _BOTH if name.startswith("payload") else (_SCRIPTED,)
            rows[f"junk/{name}/{moment}"] = _Row(partial(_junk, moment=moment, name=name), where)
        for count in (1, 2):
            row = _Row(partial(_lost, moment=moment, count=count), options=_SLOW)
            rows[f"lost-puback/{moment}/{count}"] = row
    bad = [("refuse_connect", code, code, {NOT_CONNECTED}) for code in range(1, 6)]
    bad.append(("refuse_subscribe", True, True, {NOT_CONNECTED}))
    bad.append(("silent", True, True, {NOT_CONNECTED}))
    # Some of it is not taken for what it is: umqtt's checks are not compiled into an image.
    either = {NOT_CONNECTED, SUCCEEDED}
    bad += [("garbage", name, data, either) for name, data in lf.GARBAGE.items()]
    for name, key, value, allowed in bad:
        play = partial(_bad_in_trial, name=name, value=value, allowed=allowed)
        rows[f"{name}/{key}/in-trial"] = _Row(play)
        if name != "silent":  # which does not hear a login
            rows[f"{name}/{key}/at-first"] = _Row(partial(_at_first, name=name, value=value))
    return rows


_ROWS = _rows()


def _cases() -> list[str]:
    installed = bool(mosquitto.program()) or os.environ.get("CI")
    if not installed:
        print(f"SKIP broker/{_REAL}: {_MISSING}", file=sys.stderr)
    # Another scene for each row, and two for each.
    return [
        f"broker/{where}/{name}/{(place + more) % len(SCENES)}"
        for place, (name, row) in enumerate(_ROWS.items())
        for where in row.where
        if where == _SCRIPTED or installed
        for more in (0, 2)
    ]


def _run(name: str, folder: Path) -> None:
    _, where, *words, number = name.split("/")
    row = _ROWS["/".join(words)]
    broker = Broker
    if where == _REAL:
        if not mosquitto.program():
            raise Failed(_MISSING)
        place = folder.with_name("mosquitto")
        broker = partial(mosquitto.Mosquitto, folder=place, password=row.password)
    with World(folder, SCENES[int(number)], options=row.options, broker=broker) as world:
        row.play(world)
        check.follow(world)


GROUP = Group("broker", "broker", _cases, _run, sample=40)
