"""
Every command of the pages is run, as it stands there but for what differs from machine to machine:
ports, secrets, names of hosts, the board. In the order of the page, in a folder of its own.
"""

import json
import os
import re
import shlex
import subprocess
import threading
import time

import pytest

from tests.boards import PROMPT, WAIT_S
from tests.test_docs import PAGES, ids
from tests.test_image_kind import CSV
from tests.test_platform_server import Player
from tools import servers
from tools.device.device import Device
from tools.device.layout import OTA_4MIB, table_bytes
from tools.image import wrong
from tools.image.firmware import firmware, stock
from tools.toolchain import ROOT

pytest_plugins = "tests.databases"

TIMEOUT_S = 120
BLOCK = re.compile(r"^( *)```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# A program at the beginning of an indented line is a command that the test does not see.
HIDDEN = re.compile(r"^    +(make|python|\.venv/bin/\S+|mpremote|esptool|cd|git) .*", re.MULTILINE)
# What nothing here can run; the page says so beside it.
NOT_RUN = {
    "docs/board.md": ("esptool --chip esp32",),  # a board
    "docs/building.md": ("cd micropython/ports/esp32", "make BOARD="),  # ESP-IDF
}
STAYS = ("platform serve", "device run")  # runs until somebody ends it


def commands(page):
    for indent, block in BLOCK.findall(page.read_text()):
        text = re.sub(rf"^{indent}", "", block, flags=re.MULTILINE).replace("\\\n", " ")
        yield from (line for line in text.splitlines() if line.strip())


class Desk:
    """A folder in which a page is followed. Attributes: secret, mqtt_port, http_port."""

    def __init__(self, folder):
        self.folder = folder
        for name in (".venv", "tools", "ota", "build", "tests", "unix_port_tests", "examples"):
            (folder / name).symlink_to(ROOT / name)
        for name in (
            "boot.py",
            "main.py",
            "package.json",
            "manifest.py",
            "Makefile",
            "requirements.txt",
            "pyproject.toml",
        ):
            (folder / name).symlink_to(ROOT / name)
        self.secret, self.mqtt_port = "", 0
        self.more = []  # to be closed
        self._running = {}

    def run(self, command):
        """As a shell would. Returns what it printed."""
        if any(words in command for words in STAYS):
            return self._start(command)
        program = ["bash", "-c", command]
        done = subprocess.run(
            program,
            cwd=self.folder,
            env=self._env(),
            input="correct horse battery\n" * 2,  # where it asks for a password
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            start_new_session=True,  # no terminal to ask at
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        found = re.search(r"DEVICE_SECRET\W+([0-9a-f]{32})", done.stdout)
        self.secret = found[1] if found else self.secret
        return done.stdout

    def _env(self):
        path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "MAKEFLAGS": ""}

    def _start(self, command):
        # Each takes the place of the one before of its kind.
        kind = "serve" if "serve" in command else command
        self.end(kind)
        process = subprocess.Popen(
            ["bash", "-c", f"exec env {command}"],
            cwd=self.folder,
            env=self._env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._running[kind] = process
        lines = []
        for line in process.stdout:
            lines.append(line)
            found = re.search(r"^http .*:(\d+)$", line)
            if found or kind != "serve":
                break
        assert process.poll() is None, "".join(lines)
        port = re.search(r"^mqtt .*:(\d+)$", "".join(lines), re.MULTILINE)
        self.mqtt_port = int(port[1]) if port else self.mqtt_port
        threading.Thread(target=process.stdout.read, daemon=True).start()
        return "".join(lines)

    def end(self, kind=None):
        for name in [kind] if kind else list(self._running):
            process = self._running.pop(name, None)
            if process:
                process.terminate()
                process.wait(20)

    def close(self):
        for each in self.more:
            each()
        self.end()

    def tools(self, *words):
        return self.run(shlex.join([".venv/bin/python", "-m", "tools", *words]))


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path)
    yield made
    made.close()


# What a page takes for granted, before it begins; and what differs from machine to machine: pairs
# of a regular expression and what stands there instead, text or a function of the desk.


def own_ports(desk):
    return "platform serve --mqtt-port 0 --http-port 0"


def board(desk):
    """A board with a stock firmware, on the desk. Its port."""
    if not hasattr(desk, "board"):
        image = stock(desk.folder / "stock.bin")
        desk.board = Device(desk.folder / "board", serial=True).create(image)
        desk.more += [desk.board.stop, desk.board.serial.close]
        desk.board.start().wait(PROMPT, WAIT_S)
    return desk.board.serial.path


def seen(desk):
    """Before `platform upgrade`: the device has told its version."""
    rows = json.loads(desk.tools("platform", "device", "list", "--json"))
    deadline = time.monotonic() + TIMEOUT_S
    while not any(row["seen"] for row in rows):
        assert time.monotonic() < deadline, rows
        time.sleep(0.2)
        rows = json.loads(desk.tools("platform", "device", "list", "--json"))
    return "platform upgrade"


def images(desk):
    firmware(desk.folder / "micropython.bin", "1.1.0")
    wrong.combined(
        desk.folder / "firmware.bin", desk.folder / "micropython.bin", table_bytes(OTA_4MIB)
    )
    (desk.folder / "partitions.csv").write_text(CSV)


def image_to_pack(desk):
    firmware(desk.folder / "firmware.bin", "1.1.0")


def product(desk):
    """A platform that knows the product, and an image."""
    images(desk)
    desk.run(".venv/bin/python -m " + "tools " + own_ports(desk))
    desk.tools("platform", "product", "add", "lamp")


def settled(desk):
    """boot.py with the settings that `device add` printed, as the page says."""
    text = (ROOT / "boot.py").read_text()
    for name, value in (
        ("WIFI_SSID", "home"),
        ("MQTT_SERVER", "127.0.0.1"),
        ("PRODUCT_KEY", "lamp"),
        ("IDENTIFIER", "kitchen"),
        ("DEVICE_SECRET", desk.secret),
    ):
        text = text.replace(f'{name} = ""', f'{name} = "{value}"')
    text = text.replace("MQTT_PORT = 1883", f"MQTT_PORT = {desk.mqtt_port}")
    (desk.folder / "play/boot.py").write_text(text)
    return "device create"


def bench_device(desk):
    Device(desk.folder / "kitchen").create(firmware(desk.folder / "k.bin", "1.0.0", size=None))


def fleet_of_one(desk):
    """Before the roll-out: firmware, and a device that is there."""
    (desk.folder / "identifiers.txt").write_text("attic\ncellar\n")
    desk.tools("platform", "product", "add", "lamp")
    desk.tools("platform", "device", "add", "lamp", "kitchen")
    firmware(desk.folder / "a.bin", "1.1.0")
    words = ["upload", "a.bin", "--product", "lamp", "--version", "1.1.0"]
    desk.tools("platform", "firmware", *words)
    player = Player(desk.mqtt_port, "kitchen", desk.secret, product="lamp")
    desk.more.append(player.end)
    assert player.ready() == "subscribed"
    player.version("1.0.0")
    desk.player = player
    return seen(desk)


def over(desk):
    """Before the firmware is removed: its batch has ended."""
    desk.player.version("1.1.0")
    deadline = time.monotonic() + TIMEOUT_S
    while json.loads(desk.tools("platform", "status", "1", "--json"))["state"] != "Completed":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return "firmware remove"


TARGETS = (r"^make ", "make -n ")  # those of the Makefile are run by other tests, or by hand
SERVE = (r"platform serve", own_ports)
WITH_BOARD = (
    (r"/dev/ttyUSB0", board),
    (r"WIFI_PASSWORD=\.\.\.", "WIFI_PASSWORD=secret"),
    (r"192\.0\.2\.10", "127.0.0.1"),
    (r"DEVICE_SECRET=\.\.\.", lambda desk: f"DEVICE_SECRET={desk.secret} "
     f"--set MQTT_PORT={desk.mqtt_port}"),
    (r"platform upgrade", seen),
    (r" FILE$", " micropython.bin"),
)  # fmt: skip
STORY = {
    "README.md": (images, (TARGETS, SERVE, *WITH_BOARD)),
    "CONTRIBUTING.md": (None, (TARGETS, (r" PORT=folder MICROPYTHON=path", ""))),
    "docs/board.md": (images, (TARGETS, SERVE, *WITH_BOARD)),
    "docs/fleet.md": (
        None,
        (
            TARGETS,
            SERVE,
            (r"platform upgrade", fleet_of_one),
            (r"firmware remove", over),
        ),
    ),
    # A class takes minutes, a seeded bug too: the campaign itself is run by `make test`.
    "docs/faults.md": (
        None,
        (
            (r"cut/2/359/random", "late/0/exception/1"),
            (r'(--class late$|"bugs.*)', "--class late --list"),
        ),
    ),
    "docs/limits.md": (image_to_pack, ()),
    "docs/simulator.md": (
        bench_device,
        (
            SERVE,
            (r"device create", settled),
            (r"platform upgrade", seen),
            (r"^make (\S+).*", r"make -n \1"),
        ),
    ),
    "docs/trust.md": (product, (SERVE,)),
}


@pytest.mark.parametrize("page", [page for page in PAGES if list(commands(page))], ids=ids)
def test_commands(page, desk, request):
    before, changes = STORY[ids(page)]
    if before:
        before(desk)
    if page.name == "fleet.md":
        changes += outside(desk, request)
    for command in commands(page):
        for pattern, instead in changes:
            if re.search(pattern, command):
                text = instead(desk) if callable(instead) else instead
                command = re.sub(pattern, text, command)
        desk.run(command)


def outside(desk, request):
    """The servers of a fleet, in the place of the names on the page."""
    url = request.getfixturevalue("postgres")()
    broker = servers.mosquitto(desk.folder / "broker", "allow_anonymous true")
    port = broker.__enter__()
    desk.more.append(lambda: broker.__exit__(None, None, None))
    (desk.folder / "etc").mkdir()
    return (
        (r"postgresql\+psycopg://\S+", url),
        (r"mqtts://\S+", f"mqtt://127.0.0.1:{port}"),
        (r"/etc/mosquitto/ota", str(desk.folder / "etc/ota")),
    )


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_no_command_is_hidden(page):
    text = BLOCK.sub("", page.read_text())
    for found in HIDDEN.finditer(text):
        known = any(begin in found[0] for begin in NOT_RUN.get(ids(page), ()))
        assert known, f"{found[0].strip()}: in a block ```sh it is run"
    assert ids(page) not in NOT_RUN or re.search("not (tried|run)", text.lower())


def test_a_command_that_fails_is_seen(desk):
    with pytest.raises(AssertionError, match="no such file"):
        desk.run("ls nowhere || (echo no such file; false)")


def test_all_pages_have_a_story():
    assert {ids(page) for page in PAGES if list(commands(page))} == set(STORY)
