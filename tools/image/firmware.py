"""
The firmware of this project for one version: agent, MQTT client and application frozen, as a
user's own build would have it.

Never freezes boot.py: the settings in it belong to a device, not to a version.
"""

from collections.abc import Mapping
from pathlib import Path

from tools.toolchain import LIB, ROOT

from .archive import Source
from .build import build

SIZE = 1_572_864 - 65_536  # bytes: what MicroPython's firmware comes to, in a slot of 1.5 MiB
_STOCK = 200_000  # bytes: nobody downloads it


def modules(version: str, app: Source | None = None, lib: Path | None = None) -> dict[str, Source]:
    """
    What the firmware of a version freezes: name to source, to be changed at will.

    app: the module `main`, default the project's main.py; lib: the folder with umqtt/, default
    build/lib, which `make` fills. Raises OSError: no umqtt there.
    """
    lib = LIB if lib is None else Path(lib)
    found: dict[str, Source] = {}
    for root, package in ((ROOT, "ota"), (lib, "umqtt")):
        files = sorted((root / package).rglob("*.py"))
        if not files:
            raise FileNotFoundError(f"no package {package} in {root}")
        found |= {str(file.relative_to(root).with_suffix("")): file for file in files}
    found["main"] = ROOT / "main.py" if app is None else app
    found["firmware"] = f'VERSION = "{version}"\n'
    return found


def firmware(
    path: Path | str,
    version: str,
    extra_modules: Mapping[str, Source | None] | None = None,
    app: Source | None = None,
    lib: Path | None = None,
    size: int | None = SIZE,
    **options,
) -> Path:
    """
    Writes the image of a version.

    extra_modules: more modules, or other ones in the place of the standard ones, None = leave
    that one out; so a broken image is `{"ota/agent": None}`, `{"main": "raise SyntaxError"}`,
    `{"main": "while True: pass"}`. size, options: as in `build`; size None = as small as it
    gets. The descriptor's version stays empty, as stock MicroPython leaves it, unless options
    name one. Raises as `build` and `modules`.
    """
    found = modules(version, app, lib) | dict(extra_modules or {})
    kept = {name: source for name, source in found.items() if source is not None}
    return build(path, kept, size=size, **options)


def stock(path: Path | str, lib: Path | None = None) -> Path:
    """
    Writes an image as it is flashed first, by cable: MicroPython with umqtt, nothing of ours.
    lib: as in `modules`. Raises as `build` and `modules`.
    """
    kept = {name: source for name, source in modules("", lib=lib).items() if "umqtt" in name}
    return build(path, kept, size=_STOCK)
