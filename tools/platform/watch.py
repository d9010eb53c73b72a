"""
The console's pictures: a bar for each device, and tables.
"""

import time
from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Column, Table
from rich.text import Text

from tools.platform import model

_STATUS_WIDTH = 34  # so that the bars keep their length in most of a run
COLOURS = {
    model.TO_BE_PUSHED: "dim",
    model.PUSHED: "cyan",
    model.TO_BE_UPGRADED: "cyan",
    model.UPGRADING: "blue",
    model.TO_BE_RETRIED: "yellow",
    model.SUCCEEDED: "green",
    model.FAILED: "red",
}


class Bars:
    """
    A bar for each device, for as long as it is entered: `with Bars() as bars: bars.show(rows)`.

    console: rich's, by default one on stdout.
    """

    def __init__(self, console: Console | None = None):
        self._progress = Progress(
            TextColumn("{task.fields[device]}"),
            BarColumn(None, complete_style="blue", finished_style="green"),
            TaskProgressColumn(),
            TextColumn(
                "{task.fields[status]}", table_column=Column(min_width=_STATUS_WIDTH, no_wrap=True)
            ),
            console=console or Console(),
            expand=True,
        )
        self._bars: dict[str, int] = {}

    def __enter__(self):
        self._progress.start()
        return self

    def __exit__(self, *_):
        self._progress.stop()

    def show(self, rows: Iterable[dict]):
        """rows: engine.Row as dicts (dataclasses.asdict); a device that is new gets a bar."""
        for row in rows:
            name = row["device"]
            if name not in self._bars:
                self._bars[name] = self._progress.add_task("", total=100, device=name, status="")
            bar, said = self._bars[name], styled_status(row)
            self._progress.update(bar, completed=row["progress"], status=said)


def styled_status(row: dict) -> str:
    """Status, remark and code of a row of engine.Row, in the status's colour (rich's mark-up)."""
    remark = f": {row['remark']}" if row["remark"] else ""
    code = f" ({row['code']})" if row["code"] is not None else ""
    return f"[{COLOURS[row['status']]}]{row['status']}{remark}{code}[/]"


def table(rows: list[dict], columns: dict[str, str]) -> Table:
    """
    rows: dicts; columns: {key: heading}. Times are shown as such. Nothing in a cell is mark-up:
    some of it was said by devices.
    """
    picture = Table()
    for heading in columns.values():
        picture.add_column(heading, overflow="fold")
    for row in rows:
        picture.add_row(*(Text(_cell(key, row[key])) for key in columns))
    return picture


def _cell(key, value):
    if value is None:
        return ""
    if key in ("time", "seen", "created", "ends", "uploaded"):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    return str(value)
