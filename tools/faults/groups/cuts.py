"""
The power goes before, during and after every flash operation of an upgrade: slot, boot records,
NVS; into either slot, with either boot loader.
"""

from pathlib import Path

from tools.faults.case import Group
from tools.faults.scene import SCENES, UNITS
from tools.faults.upgrade import operations, outcomes, play

_KINDS = ("before", "random", "after")


def _cases() -> list[str]:
    return [
        f"cut/{number}/{operation.k}/{kind}"
        for number, scene in enumerate(SCENES)
        for operation in operations(scene, UNITS)
        for kind in _KINDS
    ]


def _run(name: str, folder: Path) -> None:
    _, number, k, kind = name.split("/")
    fault = f"{k}:{kind}:{k}" if kind == "random" else f"{k}:{kind}"
    scene = SCENES[int(number)]
    play(folder, scene, fault, outcomes(operations(scene, UNITS), int(k)), UNITS)


GROUP = Group("cut", "power cuts", _cases, _run, sample=40)
