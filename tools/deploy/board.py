"""
What a board is, and whether it can be upgraded over the air: asked over its serial port, and said
in sentences.
"""

import json
import re
from dataclasses import dataclass, field

from esptool.targets import CHIP_DEFS

from tools.image import fit

from .line import Line

OLDEST = (1, 20)
_VALID, _PENDING, _NEW = 2, 1, 0  # states of a boot record, see docs/hardware.md


@dataclass
class Board:
    """
    version: of MicroPython; machine: as it calls itself; mpy: version of its bytecode; table:
    (label, type, subtype, size) each; state: of the boot record that counts, None = none; free:
    bytes of its filesystem; files: path to SHA-256 or None; sizes: of those that are there; hides:
    files that would hide ours; modules: of those that are needed; frozen: the package is; running:
    label of the slot.
    """

    version: tuple[int, ...]
    machine: str
    mpy: int
    free: int
    files: dict[str, str | None]
    hides: list[str]
    modules: list[str]
    heap: int
    sizes: dict[str, int] = field(default_factory=dict)
    frozen: bool = False
    table: list[tuple[str, int, int, int]] | None = None
    state: int | None = None
    running: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def chip(self) -> str:
        """As esptool calls it; "" = unknown."""
        found = re.search(r"with (ESP32\S*)", self.machine)
        if not found:
            return ""
        name = found[1].replace("-", "").lower()  # of the module, often: ESP32-C3FH4
        known = sorted((chip for chip in CHIP_DEFS if name.startswith(chip)), key=len)
        return known[-1] if known else ""

    @property
    def slot(self) -> int:
        """Bytes of its smallest slot, 0 = it has none."""
        try:
            return fit.slots_of(self.table or []).size
        except ValueError:
            return 0

    @property
    def problem(self) -> str:
        """The first one; "" = it can be upgraded."""
        return self.problems[0] if self.problems else ""

    def describe(self) -> str:
        version = ".".join(map(str, self.version))
        return f"MicroPython {version}, {self.machine}, {self.free // 1024} KiB free"


def probe(line: Line | str, files: list[str] | None = None) -> Board:
    """
    Asks a board. line: or its port; files: paths whose digests are wanted. Raises LineError.
    """
    line = Line(line) if isinstance(line, str) else line
    found = json.loads(line.run("probe", ASKED=files or []))
    rows = found.get("table")
    board = Board(
        version=tuple(found["version"]),
        machine=found["machine"],
        mpy=found["mpy"] & 0xFF,
        free=found["free"],
        files=found["files"],
        hides=found["hides"],
        modules=found["modules"],
        heap=found["heap"],
        sizes=found["sizes"],
        frozen=found["frozen"],
        # As esp32.Partition.info() tells them: type, subtype, address, size, label.
        table=[(row[4], row[0], row[1], row[3]) for row in rows] if rows is not None else None,
        state=found.get("state"),
        running=found.get("running", ""),
    )
    board.problems = list(_problems(board, found["name"]))
    return board


def _problems(board, name):
    if name != "micropython":
        yield f"the board runs {name}, not MicroPython: flash MicroPython's OTA variant by cable"
        return
    if board.version[:2] < OLDEST:
        version = ".".join(map(str, board.version))
        yield f"MicroPython {version} is too old, 1.20 is needed: flash a newer one by cable"
    if board.table is None:
        yield f"no ESP32 ({board.machine}): it has no module esp32, so no slots to upgrade into"
        return
    try:
        fit.slots_of(board.table)
    except ValueError as error:
        yield f"{error}: flash MicroPython's OTA variant by cable (its name ends in -OTA)"
        return
    if board.state in (_PENDING, _NEW):
        yield (
            "the firmware that runs was on trial and had not confirmed itself. This look at it "
            "has stopped it, so it is rolled back; try again then"
        )
    elif board.state is None:
        yield (
            "there is no boot record that counts, so nobody can tell whether the boot loader has "
            "rollback: flash MicroPython's OTA variant by cable"
        )
    elif board.state != _VALID:
        yield (
            "the boot loader has no rollback: a bad upgrade could not be undone. Flash a firmware "
            "built with CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE by cable, as MicroPython's are"
        )
    for module in ("umqtt.simple", "requests"):
        if module not in board.modules:
            package = module.partition(".")[0]
            yield (
                f"the board has no {module}: freeze it into the firmware, or install it: "
                f"mpremote mip install {module if package == 'umqtt' else package}"
            )
    for path in board.hides:
        yield f"{path} on the board would hide what an upgrade brings: move it away"
