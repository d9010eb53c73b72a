"""
The broker misbehaves: scripted at its worst, and mosquitto as far as a real one can be brought to.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.faults import brokerplays as plays
from tools.faults import check, mosquitto
from tools.faults import commandplays as commands
from tools.faults import linkfaults as lf
from tools.faults.broker import Broker
from tools.faults.brokerplays import NOT_CONNECTED
from tools.faults.case import Group
from tools.faults.check import SUCCEEDED
from tools.faults.scene import SCENES
from tools.faults.upgrade import ROLLED_BACK
from tools.faults.world import OPTIONS, Failed, World

_MISSING = "mosquitto is not installed: make mosquitto as root, or apt-get install mosquitto"
_LONG_TEXT = 4096  # bytes of a message
_SCRIPTED, _REAL = "scripted", "mosquitto"
_BOTH = (_SCRIPTED, _REAL)
# A PUBACK that does not come costs 10 s each time: longer than other trials last.
_SLOW = OPTIONS.replace("trial_s=5", "trial_s=40")
_BAD = "import machine\nmachine.reset()\n"  # never comes to the agent


@dataclass(frozen=True)
class _Row:
    # where: brokers that can do it; password: see Mosquitto.
    play: Callable[[World], object]
    where: tuple[str, ...] = (_SCRIPTED,)
    options: str = OPTIONS
    password: str | None = None


def _rows() -> dict[str, _Row]:
    rows = {
        "down": _Row(plays.down_at_first, _BOTH),
        "silent": _Row(plays.silent_at_first),
        "gone/in-trial": _Row(plays.gone_in_trial, _BOTH),
        "deaf/in-trial": _Row(plays.deaf_in_trial),
        "wrong-password": _Row(plays.wrong_password, (_REAL,), password="another"),
        "retained/good": _Row(partial(commands.retained, app=None, result=SUCCEEDED), _BOTH),
        "retained/bad": _Row(partial(commands.retained, app=_BAD, result=ROLLED_BACK), _BOTH),
        "redelivered": _Row(commands.redelivered),
        "padded/blanks": _Row(partial(commands.padded, lf.MESSAGE_MAX, commands.blanks), _BOTH),
        # A text costs its length once more when it is read.
        "padded/key": _Row(partial(commands.padded, _LONG_TEXT, commands.another_key), _BOTH),
        "swallowed": _Row(plays.swallowed),
        "lost-outcome": _Row(plays.outcome_lost),
        "lost-puback/start": _Row(plays.lost_at_start),
    }
    for moment in lf.MOMENTS:
        rows[f"twice/{moment}"] = _Row(partial(commands.twice, moment=moment), _BOTH)
        for fault in (lf.restart, lf.takeover, lf.takeovers, lf.drop, lf.silence):
            where = (_SCRIPTED,) if fault in (lf.drop, lf.silence) else _BOTH
            row = _Row(partial(plays.disturbed, moment=moment, fault=fault), where)
            rows[f"{fault.__name__}/{moment}"] = row
        for name in lf.JUNK:
            where = _BOTH if name.startswith("payload") else (_SCRIPTED,)
            rows[f"junk/{name}/{moment}"] = _Row(
                partial(plays.junk, moment=moment, name=name), where
            )
        for count in (1, 2):
            row = _Row(partial(plays.lost, moment=moment, count=count), options=_SLOW)
            rows[f"lost-puback/{moment}/{count}"] = row
    bad = [("refuse_connect", code, code, {NOT_CONNECTED}) for code in range(1, 6)]
    bad.append(("refuse_subscribe", True, True, {NOT_CONNECTED}))
    bad.append(("silent", True, True, {NOT_CONNECTED}))
    # Some of it is not taken for what it is: umqtt's checks are not compiled into an image.
    either = {NOT_CONNECTED, SUCCEEDED}
    bad += [("garbage", name, data, either) for name, data in lf.GARBAGE.items()]
    for name, key, value, allowed in bad:
        play = partial(plays.bad_in_trial, name=name, value=value, allowed=allowed)
        rows[f"{name}/{key}/in-trial"] = _Row(play)
        if name != "silent":  # which does not hear a login
            rows[f"{name}/{key}/at-first"] = _Row(partial(plays.at_first, name=name, value=value))
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
        for more in (0, 1)
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
