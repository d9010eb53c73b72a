"""What a seeded bug is, see mutants.py."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """
    name: what is wrong; file: where; old: text that stands there once; new: what takes its place;
    cases: names of those that may catch it, the likeliest first. In the place of a number of a
    flash operation may stand {set_boot}, {trial} or {confirm}, or {confirm+1} and so on: where an
    upgrade writes its boot records; numbers move with the size of the image.
    """

    name: str
    file: str
    old: str
    new: str
    cases: tuple[str, ...]
