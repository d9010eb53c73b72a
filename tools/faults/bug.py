"""What a seeded bug is, see mutants.py."""

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
