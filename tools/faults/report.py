"""What the campaign says: a bar while it runs, the table, build/faults.json, the page of the docs."""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from tools.faults.groups import GROUPS
from tools.faults.mutants import Hunt
from tools.faults.runner import Result
from tools.toolchain import BUILD, ROOT

JSON = BUILD / "faults.json"
PAGE = ROOT / "docs" / "faults.md"

_BUGS = "seeded bugs"
_EVERY = 250  # cases between two lines that say how far it is


@dataclass
class Tally:
    """Of one class. cases: played; tried: things in them; failed: names of cases."""

    title: str
    cases: int = 0
    tried: int = 0
    survived: int = 0
    failed: list[str] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.cases += 1
        self.tried += result.tried
        if result.why:
            self.failed.append(result.name)
        else:
            self.survived += result.tried


@dataclass
class Campaign:
    """All of it. bugs: None = were not looked for; seconds: how long it took."""

    tallies: list[Tally]
    bugs: Hunt | None
    seed: int
    seconds: float

    @property
    def good(self) -> bool:
        """Every case was survived, every bug caught, and there was something to play."""
        played = all(tally.cases and not tally.failed for tally in self.tallies)
        return played and not (self.bugs and self.bugs.missed)


def tallies(keys: list[str]) -> dict[str, Tally]:
    """Empty ones, by the keys of the groups."""
    return {key: Tally(GROUPS[key].title) for key in keys}


def progress() -> Callable[[Result], None]:
    """A function to be called with each result, that now and then says how far it is."""
    console = Console(stderr=True)
    played = 0

    def show(result: Result) -> None:
        nonlocal played
        played += 1
        if played % _EVERY == 0:
            console.print(f"{played:,} cases", highlight=False)

    return show


def show(campaign: Campaign) -> None:
    """The table, for people."""
    table = Table("class", "cases", "tried", "survived")
    for tally in campaign.tallies:
        table.add_row(tally.title, f"{tally.cases:,}", f"{tally.tried:,}", f"{tally.survived:,}")
    if campaign.bugs:
        table.add_row(
            _BUGS, "", f"{campaign.bugs.seeded} seeded", f"{campaign.bugs.caught} caught"
        )
    console = Console()
    console.print(table)
    for tally in campaign.tallies:
        for name in tally.failed:
            console.print(f"not survived: {name}", highlight=False)
    for name in campaign.bugs.missed if campaign.bugs else ():
        console.print(f"not caught: {name}", highlight=False)


def write(campaign: Campaign) -> None:
    """build/faults.json and docs/faults.md."""
    rows: list[dict] = [
        {"class": tally.title, "tried": tally.tried, "survived": tally.survived}
        for tally in campaign.tallies
    ]
    if campaign.bugs:
        rows.append(
            {"class": _BUGS, "seeded": campaign.bugs.seeded, "caught": campaign.bugs.caught}
        )
    JSON.parent.mkdir(exist_ok=True)
    JSON.write_text(json.dumps(rows, indent=1) + "\n", encoding="ascii")
    PAGE.write_text(page(campaign), encoding="ascii")


def page(campaign: Campaign) -> str:
    """The page for docs/."""
    lines = [*_HEAD]
    for tally in campaign.tallies:
        lines.append(f"| {tally.title} | {tally.cases:,} | {tally.tried:,} | {tally.survived:,} |")
    if campaign.bugs:
        lines.append(f"| {_BUGS} | | {campaign.bugs.seeded} | {campaign.bugs.caught} caught |")
    lines += [
        "",
        f"Seed {campaign.seed}; {campaign.seconds / 60:.0f} minutes on {os.cpu_count()} cores, "
        f"Python {platform.python_version()}.",
        *_TAIL,
    ]
    return "\n".join(lines) + "\n"


_HEAD = """# Faults

Made by `make faults`, which plays the whole campaign: an upgrade in which something goes wrong,
thousands of times.
""".splitlines()
_TAIL: list[str] = []
