"""What the campaign says: how far it is, the table, build/faults.json, the page of the docs."""

import json
import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from tools.faults.groups import GROUPS
from tools.faults.mutants import Hunt
from tools.faults.runner import Result
from tools.toolchain import BUILD, ROOT

JSON = BUILD / "faults.json"
AGAIN = BUILD / "faults.again"  # names of the cases that did not survive
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
    names = [name for tally in campaign.tallies for name in tally.failed]
    _keep(names + (campaign.bugs.missed if campaign.bugs else []))
    PAGE.write_text(page(campaign), encoding="ascii")


def failed() -> list[str]:
    """
    Names of the cases that did not survive last, and of the bugs not caught. Raises
    FileNotFoundError: none was written.
    """
    return AGAIN.read_text(encoding="ascii").splitlines()


def amend(results: list[Result], bugs: Hunt) -> None:
    """Takes what came of the failed ones, played again, into build/faults.json and the page."""
    rows = json.loads(JSON.read_text(encoding="ascii"))
    text = PAGE.read_text(encoding="ascii")
    for result in results:
        title = GROUPS[result.name.split("/", 1)[0]].title
        row = next(row for row in rows if row["class"] == title)
        row["tried"] += result.tried - 1  # the one that failed was counted as one
        row["survived"] += 0 if result.why else result.tried
        line = rf"(?m)^(\| {re.escape(title)} \| [\d,]+ \|).*$"
        text = re.sub(line, rf"\1 {row['tried']:,} | {row['survived']:,} |", text)
    if bugs.seeded:
        row = next(row for row in rows if row["class"] == _BUGS)
        row["caught"] += bugs.caught
        line = rf"(?m)^(\| {_BUGS} \| \| \d+ \|).*$"
        text = re.sub(line, rf"\1 {row['caught']} caught |", text)
    if results:
        mended = (
            f"{len(results)} of the cases did not survive at first: what they found was mended."
        )
        text = text.replace("\nSeed ", f"\n{mended}\n\nSeed ")
    JSON.write_text(json.dumps(rows, indent=1) + "\n", encoding="ascii")
    _keep([result.name for result in results if result.why] + bugs.missed)
    PAGE.write_text(text, encoding="ascii")


def _keep(names: list[str]) -> None:
    AGAIN.write_text("".join(f"{name}\n" for name in names), encoding="ascii")


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

What is done to a device while it upgrades, and whether it came through. Made by `make faults`,
which plays all of it; `make test` plays a sample of each class, drawn by a seed.

A case is a whole upgrade: a simulated ESP32 that runs the real MicroPython, the real umqtt and
requests; the platform's own logic; a broker and a file server that do as the case wants. In it
something goes wrong, or several things do. Then, after every case, from outside:

- Every start found a complete image that somebody approved, byte for byte.
- The slot that runs was not touched while it ran.
- The outcome of the command is true (the version that runs), was told at least once, never
  contradicted, with one msgId and one code, and the platform counted it once. Where the case took
  the journal away, the version alone has to do.
- A later good upgrade succeeds.
- No flash violation, no write to the running slot, no malformed message; the heap is as it was.

The check (`tools/faults/check.py`) shares no code with the agent: it compares flash with the
files, and the messages with the platform's books.

| class | cases | tried | survived |
| --- | --- | --- | --- |
""".splitlines()
_TAIL = """
A case that did not survive is named, with what happened. By its name it is played again alone:

```sh
.venv/bin/python -m tools faults cut/2/359/random
```

What did not survive is played again, on the mended code, and counted anew:

```sh
.venv/bin/python -m tools faults --again
```

One class, or the names of its cases:

```sh
.venv/bin/python -m tools faults --class late
.venv/bin/python -m tools faults --class late --list
```

Devices that take signed firmware alone ([trust](trust.md)) are played with the same cases by
`--signed`: the platform signs, and whatever is hand-made must not be taken on.

The classes are in `tools/faults/groups/`, one file each. The seeded bugs (`tools/faults/bugs.py`)
are small wrong changes of the agent and of the simulated device, planted in a copy of the tree:
a campaign that could not find them would prove nothing. The cases that are to catch one survive
in the good code. One is tried alone by its name, too:

```sh
.venv/bin/python -m tools faults "bugs/a trial has no deadline"
```

What it cannot show: how real flash ages, what voltage does while it falls, what a radio does to
the supply. The power cut here is a process that dies at one flash operation, which is done not at
all, wholly, or in part; see [the simulator](simulator.md#faults).
""".splitlines()
