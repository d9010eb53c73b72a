"""
The pictures of the pages, made of what they show: a console in chromium, and a terminal.

    python -m tools.pictures docs

Makes console.png and terminal.png in that folder. Needs chromium: make chromium.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

from tools import servers
from tools.demo.user import application, settings
from tools.device.device import Device
from tools.image.build import build
from tools.image.firmware import SIZE, firmware, modules
from tools.platform.local import LocalPlatform
from tools.toolchain import ROOT

_NAMES = ("cellar", "garden", "kitchen")
_BEGUN = 40  # percent of a download when the picture is taken
_WAIT_S = 120
_WIDTH, _HEIGHT = 1100, 640
_COLUMNS = 96


def console(folder: Path, target: Path) -> None:
    """Three devices in the middle of an upgrade."""
    old, new = (
        firmware(folder / f"{v}.bin", v, app=application(True)) for v in ("1.0.0", "1.1.0")
    )
    with contextlib.ExitStack() as stack:
        platform = stack.enter_context(LocalPlatform(folder / "platform", throttle=SIZE // 10))
        platform.platform.access.add_operator("ann", "correct horse battery")
        platform.add_product("lamp", "Lamp")
        for name in _NAMES:
            device = stack.enter_context(Device(folder / name)).create(old)
            secret = platform.add_device("lamp", name)
            device.put("boot.py", settings("lamp", name, secret, platform.mqtt_port))
            device.start()
        platform.wait_seen(list(_NAMES), _WAIT_S)
        batch = platform.upgrade(platform.upload("lamp", new, "1.1.0"))
        page = stack.enter_context(_page())
        url = f"http://127.0.0.1:{platform.http_port}"
        page.goto(url)
        page.get_by_label("Name").fill("ann")
        page.get_by_label("Password").fill("correct horse battery")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Batches").wait_for()
        page.goto(f"{url}/batches/{batch}")
        engine = platform.platform.engine
        engine.until(lambda: min(r.progress for r in platform.status(batch)) >= _BEGUN, _WAIT_S)
        time.sleep(1)  # for the page to hear of it
        page.screenshot(path=target)
        platform.wait(batch, _WAIT_S)


def terminal(folder: Path, target: Path) -> None:
    """From a board with nothing on it to the first upgrade."""
    stock = {name: text for name, text in modules("").items() if name.startswith("umqtt")}
    image = build(folder / "stock.bin", stock)
    firmware(folder / "micropython.bin", "1.1.0")
    out = Console(record=True, width=_COLUMNS, file=open("/dev/null", "w"))  # noqa: SIM115
    with (
        LocalPlatform(folder / "second") as platform,
        Device(folder / "board", serial=True) as board,
    ):
        platform.add_product("lamp")
        secret = platform.add_device("lamp", "kitchen")
        board.create(image).start().wait('Type "help', _WAIT_S)
        hidden = {
            "/dev/ttyUSB0": board.serial.path,
            "DEVICE_SECRET=...": "DEVICE_SECRET=" + secret,
        }
        more = f"--set=MQTT_PORT={platform.mqtt_port}"
        for words, extra in (
            (
                "deploy --port /dev/ttyUSB0 --set WIFI_SSID=home --set MQTT_SERVER=127.0.0.1 "
                "--set PRODUCT_KEY=lamp --set IDENTIFIER=kitchen --set DEVICE_SECRET=...",
                [more],
            ),
            ("image inspect micropython.bin", []),
            (
                "platform firmware upload micropython.bin --product lamp --version 1.1.0",
                ["--folder"],
            ),
            ("platform upgrade lamp-1.1.0 kitchen --watch", ["--folder"]),
        ):
            out.print(Text(f"$ python -m tools {words}", style="bold"))
            real = [hidden.get(word, word) for word in words.split()]
            if extra == ["--folder"]:
                platform.wait_seen(["kitchen"], _WAIT_S)
                real[1:1] = ["--folder", str(platform.platform.folder)]
                extra = []
            done = subprocess.run(
                [sys.executable, "-m", "tools", *real, *extra],
                cwd=folder,
                env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
                capture_output=True,
                text=True,
                timeout=_WAIT_S,
                check=True,
            )
            out.print(Text(done.stdout))
    drawn = folder / "terminal.svg"
    out.save_svg(str(drawn), title="From the box to the first upgrade")
    with _page() as page:
        page.goto(drawn.as_uri())
        page.locator("svg").screenshot(path=target)


@contextlib.contextmanager
def _page():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=servers.program("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
        browser.close()


def main(argv: list[str]) -> int:
    """Exit status: 0 done, 2 wrong arguments."""
    if len(argv) != 1 or argv[0].startswith("-"):
        print("usage: python -m tools.pictures FOLDER", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="ota-pictures-") as folder:
        console(Path(folder), Path(argv[0], "console.png").absolute())
        terminal(Path(folder), Path(argv[0], "terminal.png").absolute())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
