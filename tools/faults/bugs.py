"""The seeded bugs of the campaign, see mutants.py."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """
    name: what is wrong; file: where; old: text that stands there once; new: what takes its place;
    cases: names of those that may catch it, the likeliest first.
    """

    name: str
    file: str
    old: str
    new: str
    cases: tuple[str, ...]


BUGS = (
    Bug(
        "the version is told before the confirmation",
        "ota/trial.py",
        "            code = _SWITCH\n",
        "            code = _SWITCH\n            ota.tested = True\n            ota.connected()\n",
        ("cut/2/359/random", "cut/2/357/before"),
    ),
)
