"""
What a release is for `mip`: a folder with the device package as .mpy and the list of its files, to
be put onto any web server.

    python -m tools.release build/release
    mpremote mip install https://your.server/release/package.json

From a checkout the package.json of the project does, which names the sources.
"""

import json
import re
import sys
from pathlib import Path

from tools.deploy.files import PACKAGE, package
from tools.toolchain import ROOT


def version() -> str:
    """Of the project, as manifest.py says."""
    return re.search(r'version="([^"]+)"', (ROOT / "manifest.py").read_text())[1]


def sources() -> dict:
    """What package.json holds for a checkout: the sources, relative to it."""
    names = [f"ota/{path.name}" for path in sorted((ROOT / "ota").glob("*.py"))]
    return {"urls": [[name, name] for name in names], "deps": [], "version": version()}


def write(folder: Path) -> Path:
    """Writes a release. Returns its package.json. Raises ValueError, OSError."""
    urls = []
    for path, data in package().items():
        name = "ota" + path.removeprefix(PACKAGE)
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        urls.append([name, name])
    index = folder / "package.json"
    index.write_text(json.dumps({"urls": urls, "deps": [], "version": version()}, indent=2) + "\n")
    return index


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m tools.release FOLDER")
    print(write(Path(sys.argv[1])))
