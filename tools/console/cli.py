"""
python -m tools console: the platform, its console, and two simulated devices to play with, until
Ctrl-C. All of it is gone afterwards.
"""

import argparse
import contextlib
import os
import secrets
import signal
import sys
import tempfile
import threading
import webbrowser
from pathlib import Path

from rich.console import Console

from tools.demo.user import application, settings
from tools.device.device import Device
from tools.image.firmware import SIZE, firmware
from tools.platform.local import LocalPlatform
from tools.platform.model import PlatformError

PRODUCT, OPERATOR = "lamp", "operator"
DEVICES = ("kitchen", "cellar")
OLD, GOOD, BROKEN = "1.0.0", "1.1.0", "1.2.0"
_DOWNLOAD_S = 10  # so that the bars can be watched
_WAIT_S = 60

_TEXT = """
[bold]{url}[/]
  name      {operator}
  password  {password}

Two devices run version {old}: {devices}. Files to upload, for product {product}:
  {good}  version {good_version}
  {broken}  version {broken_version}, whose self-test fails: devices roll back

Ctrl-C ends it, and takes all of it away.
"""


def main(argv: list[str]) -> int:
    """Exit status: 0 = ended by Ctrl-C, 1 = it cannot run, 2 = wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m tools console", description=__doc__)
    parser.add_argument("--port", type=int, default=8070, help="of the console; 0: any free one")
    parser.add_argument("--no-browser", action="store_true", help="open no browser")
    args = parser.parse_args(argv)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        with tempfile.TemporaryDirectory(prefix="ota-console-") as folder:
            _run(Path(folder), args, ended, Console(highlight=False))
    except (OSError, PlatformError) as error:
        print(f"console: {error}", file=sys.stderr)
        return 1
    return 0


def _run(folder, args, ended, out):
    files = {
        version: firmware(folder / f"{PRODUCT}-{version}.bin", version, app=application(works))
        for version, works in ((OLD, True), (GOOD, True), (BROKEN, False))
    }
    with contextlib.ExitStack() as stack:
        platform = stack.enter_context(
            LocalPlatform(
                folder / "platform", http_port=args.port, throttle=int(SIZE / _DOWNLOAD_S)
            )
        )
        password = secrets.token_urlsafe(9)
        platform.platform.access.add_operator(OPERATOR, password)
        platform.add_product(PRODUCT, "Lamp")
        for name in DEVICES:
            device = stack.enter_context(Device(folder / name)).create(files[OLD])
            secret = platform.add_device(PRODUCT, name)
            device.put("boot.py", settings(PRODUCT, name, secret, platform.mqtt_port))
            device.start()
        platform.wait_seen(list(DEVICES), _WAIT_S)
        url = f"http://127.0.0.1:{platform.http_port}/"
        out.print(
            _TEXT.format(
                url=url,
                operator=OPERATOR,
                password=password,
                old=OLD,
                devices=", ".join(DEVICES),
                product=PRODUCT,
                good=files[GOOD],
                good_version=GOOD,
                broken=files[BROKEN],
                broken_version=BROKEN,
            ),
            soft_wrap=True,
        )
        sys.stdout.flush()
        if not args.no_browser and _has_screen():
            webbrowser.open(url)
        ended.wait()


def _has_screen():
    # Else webbrowser may start one that takes the terminal.
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
