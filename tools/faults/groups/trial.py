"""
The trial of a new image is ended at each of its steps: by power cut, hang, exception, reset, soft
reset, deep sleep; once, or at every start of that image.
"""

from pathlib import Path

from tools.faults import check
from tools.faults.case import Group
from tools.faults.check import SUCCEEDED, need
from tools.faults.scene import NEW, SCENES
from tools.faults.upgrade import ROLLED_BACK, begin, bite
from tools.faults.world import World

# What ends the boot loader's one start of the image, and what goes past the boot loader.
_HANGS = ("busy", "asleep")
_HARD = ("cut", *_HANGS, "exception", "reset")
_SOFT = ("soft", "deep")
_FAILED = frozenset(range(460, 464))
_SELF_TEST = 461

# The watchdog's times, see docs/hardware.md.
_TRIAL_MS, _NEVER_MS = 120_000, 2**31 - 1
_REST_S = 20  # a trial has 5 s here

# Steps of the trial, see _HOOKS, before the image can have confirmed itself.
_MODULES = ("ota", "ota.stream", "umqtt", "ota.agent", "ota.protocol", "ota.slot", "firmware")
_EARLY = ("boot", *[f"import {name}" for name in _MODULES], "init", "poll 1")
_EARLY += ("connected before", "connected after", "test 1", "test between", "test 2")
# In whatever order the agent takes them.
_LATE = ("up", "tested", "acked", "import ota.late")
_LATE += tuple(
    f"{step} {when}"
    for step in ("confirm", "watchdog", "journal", "version", "progress", "get")
    for when in ("before", "after")
)
_POLLS = range(2, 31)  # at the third or so it is confirmed, then it tells the outcome

# For the new image: names its steps as it comes to them, and does what WHAT says at the step
# WHERE. Files on the device remember: `fault`, that it happened; `confirmed`, that the image was
# when it did.
_HOOKS = """
WHERE, WHAT, ALWAYS = %r
import builtins, os, sys, time
import esp32, machine
from firmware import VERSION
del sys.modules["firmware"]  # the agent imports it itself


def fault():
    import flash

    open("fault", "w").close()
    print("fault")
    if WHAT == "cut":
        flash.write_rtc(os.getenv("OTA_SIM_FLASH"), None)
        flash.die()
    elif WHAT == "busy":
        while True:
            pass
    elif WHAT == "asleep":
        while True:
            time.sleep(1)
    elif WHAT == "exception":
        raise RuntimeError
    elif WHAT == "reset":
        machine.reset()
    elif WHAT == "soft":
        machine.soft_reset()
    machine.deepsleep(50)


passed = set()


def at(step):
    # Each step counts the first time.
    if step in passed:
        return
    passed.add(step)
    if step == WHERE:
        fault()


def around(name, function):
    def wrapped(*args, **named):
        at(name + " before")
        result = function(*args, **named)
        if name == "confirm" and "fault" not in os.listdir():
            open("confirmed", "w").close()
        at(name + " after")
        return result

    return wrapped


class Watchdog(machine.WDT):
    def __init__(self, **named):
        around("watchdog", super().__init__)(**named)


def hooks():
    load = __import__

    def imported(name, a=None, b=None, names=(), level=0):
        # A relative one goes by the module that this function is in: so by the whole name.
        name = "ota." + name if level else name
        at("import " + name)
        return load(name, a, b, names, 0)

    def self_test():
        at("test 2" if "test 1" in passed else "test 1")
        return "test 2" in passed or None

    def begin(agent, link):
        def publish(topic, *args):
            return around(topic.split("/")[-1], send)(topic, *args)

        send = link.publish
        link.publish = publish
        agent.connected = around("connected", agent.connected)
        at("init")

    def step(agent, link):
        count[0] += 1
        if count[0] <= 50:  # an idle device goes on for long
            at("poll %%d" %% count[0])
        if link.up:
            at("up")
        if "test 2" in passed:
            at("tested")
        elif "test 1" in passed:
            at("test between")
        if "version after" in passed and not link.unacked:
            at("acked")

    count = [0]
    builtins.__import__ = imported
    machine.WDT = Watchdog
    confirm = esp32.Partition.mark_app_valid_cancel_rollback
    esp32.Partition.mark_app_valid_cancel_rollback = staticmethod(around("confirm", confirm))
    save = esp32.NVS.set_blob
    esp32.NVS.set_blob = lambda *args: around("journal", save)(*args)
    OPTIONS["self_test"] = self_test
    globals().update(begin=begin, step=step)
    at("boot")


if VERSION == %r and (ALWAYS or "fault" not in os.listdir()):
    hooks()
"""


def _cases() -> list[str]:
    polls = tuple(f"poll {number}" for number in _POLLS)
    wanted = [("once", what, where) for where in _EARLY + _LATE + polls for what in _HARD + _SOFT]
    wanted += [("always", what, where) for where in _EARLY for what in _HARD + _SOFT]
    return [
        f"trial/{number % len(SCENES)}/{'/'.join(parts)}"
        for number, parts in enumerate(wanted)
        if _happens(*parts)
    ]


def _happens(often: str, what: str, where: str) -> bool:
    # For `import firmware` the agent takes any exception: that image is as good as any.
    return (often, what, where) != ("always", "exception", "import firmware")


def _run(name: str, folder: Path) -> None:
    _, scene, often, what, where = name.split("/")
    always = often == "always"
    more = _HOOKS % ((where, what, always), NEW)
    with World(folder, SCENES[int(scene)], more=more) as world:
        attempts = 2 if always else 1
        task = begin(world, retries=attempts - 1)
        for attempt in range(attempts):
            _ended(world, what, where, attempt)
        seen = world.record.events
        world.until(lambda: world.record.last_idle > seen, "the device comes to rest", _REST_S)
        world.finish(task)
        confirmed = (world.device.fs / "confirmed").exists()
        need(not confirmed or where not in _EARLY, "confirmed without its self-test", world)
        allowed = _allowed(what, where, always, confirmed)
        check.outcome(world, task, allowed)
        need((world.device.fs / "fault").exists(), "the fault did not happen", world)
        check.follow(world)


def _ended(world: World, what: str, where: str, attempt: int) -> None:
    # The fault comes in the attempt of that number, from 0 on, and the next start.
    starts = 2 * attempt + 2
    world.until(lambda: world.device.console.count("fault") > attempt, where)
    if what in _HANGS or (what, where) == ("exception", "boot"):  # the prompt
        confirmed = (world.device.fs / "confirmed").exists()
        bite(world, starts, _NEVER_MS if confirmed else _TRIAL_MS)
    if (what, where) != ("exception", "import firmware"):
        world.until(lambda: len(world.record.boots) > starts, "the next start")


def _allowed(what: str, where: str, always: bool, confirmed: bool) -> set:
    if confirmed:
        return {SUCCEEDED}
    if what in _SOFT:  # the trial may go on behind it, but has to come to an end
        return set(_FAILED) if always else {SUCCEEDED, *_FAILED}
    if what == "exception":
        if where == "import firmware":
            return {SUCCEEDED}
        if where in ("test 1", "test 2"):
            return {_SELF_TEST}
    return {ROLLED_BACK}


GROUP = Group("trial", "resets in the trial", _cases, _run, sample=30)
