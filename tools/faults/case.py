"""What a case is: one name, that says all that is needed to run it again alone."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Group:
    """
    A class of the campaign's table.

    key: what the names of its cases begin with, before the first "/"; title: for the table; cases:
    gives the names of all; run: plays the case of a name in an empty folder, raises
    world.Failed; returns how many things it tried, None = one; sample: how many of them `make
    test` plays; few: gives the names that those are drawn from, where naming all takes long or
    playing one does, None = all.
    """

    key: str
    title: str
    cases: Callable[[], list[str]]
    run: Callable[[str, Path], int | None]
    sample: int
    few: Callable[[], list[str]] | None = None
