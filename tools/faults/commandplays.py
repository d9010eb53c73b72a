"""
What a case of the group "broker" plays with the upgrade's command: kept by the broker, sent twice,
padded. Each raises world.Failed.
"""

from collections.abc import Callable
from functools import partial

from . import check
from . import linkfaults as lf
from .brokerplays import finish
from .check import SUCCEEDED, need
from .scene import NEW
from .world import World


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
    finish(world, task, {result})
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
    finish(world, task, {SUCCEEDED})
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
    finish(world, task, {SUCCEEDED})
    when.passed()
    if moment != "restart":  # what comes then may get lost in it
        world.until(lambda: len(_codes(world, 0, msg_id)) >= 2, "a reply to each")
        world.settle()
        codes = _codes(world, 0, msg_id)
        need(codes == [200, 200], f"replied {codes}", world)
    _need_one(world)


def padded(size: int, change: Callable[[bytes, int], bytes], world: World) -> None:
    """
    The first command is so long, and good. change: makes it so, from payload and size. After a
    trial the heap's largest piece is 16.4 KB, too little for the longest.
    """
    first = iter([partial(change, size=size)])

    def changed(payload: bytes) -> bytes:
        return next(first, bytes)(payload)

    sent = _commands(world, change=changed)
    world.device.start()
    world.settle()
    finish(world, world.offer(), {SUCCEEDED})
    need(len(sent[0]) == size, f"{len(sent[0])} bytes", world)


def blanks(payload: bytes, size: int) -> bytes:
    """Blanks at its end."""
    return payload.ljust(size)


def another_key(payload: bytes, size: int) -> bytes:
    """A long text that nobody wants."""
    head = payload[:-1] + b', "notes": "'
    return head.ljust(size - 2, b".") + b'"}'
