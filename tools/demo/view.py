"""
What the demo shows: a bar for each device on a terminal, plain lines elsewhere; tables at the end.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tools.platform.engine import Row
from tools.platform.watch import Bars, styled_status

from .verdict import BROKEN, GOOD, Check, Facts

_STEP = 25  # percent between two lines about a device, where there are no bars


class View:
    """console: rich's. say() may be called from any thread."""

    def __init__(self, console: Console | None = None):
        self._console = console or Console(highlight=False)
        self._began = time.monotonic()
        self._bars: Bars | None = None
        self._told: dict[str, tuple] = {}

    def say(self, who: str, what: str) -> None:
        """One line with the time. who: a device, or the platform."""
        line = Text(f"{time.monotonic() - self._began:5.1f} s  ", "dim")
        self._console.print(line.append(f"{who:9}", "bold").append(what, "default"))

    @contextlib.contextmanager
    def act(self, title: str) -> Iterator[None]:
        """What happens in it stands below that title, with bars of its own."""
        self._console.print()
        self._console.rule(title, align="left")
        self._told.clear()
        if not self._console.is_terminal:
            yield
            return
        with Bars(self._console) as self._bars:
            yield

    def show(self, rows: list[Row]) -> None:
        """The state of the devices in an upgrade."""
        if self._console.is_terminal:
            self._bars.show(map(asdict, rows))
            return
        for row in rows:
            news = row.status, row.remark, row.progress // _STEP
            if self._told.get(row.device) != news:
                self._told[row.device] = news
                said = Text.from_markup(styled_status(asdict(row))).plain
                self.say(row.device, f"{row.progress:3} %  {said}")

    def end(self, facts: Facts, checks: list[Check]) -> None:
        """The tables."""
        self._console.print()
        self._console.print(_devices(facts))
        self._console.print(_checks(checks))


def _devices(facts: Facts) -> Table:
    table = Table(title="What happened", title_justify="left")
    for heading in ("Device", GOOD, BROKEN, "Runs", "Started from", "Violations"):
        table.add_column(heading, overflow="fold")
    upgrades = [{row.device: row for row in rows} for rows in (facts.good, facts.broken)]
    for name, device in facts.devices.items():
        table.add_row(
            name,
            *(_outcome(rows.get(name)) for rows in upgrades),
            device.version,
            " ".join(str(label) for label in device.starts),
            str(device.counters["violations"]),
        )
    return table


def _outcome(row: Row | None) -> str:
    return styled_status(asdict(row)) if row else "not sent"


def _checks(checks: list[Check]) -> Table:
    table = Table(title="What had to be true", title_justify="left", show_header=False)
    for check in checks:
        answer = "[green]true[/]" if check.true else "[bold red]FALSE[/]"
        table.add_row(answer, check.text)
    return table
