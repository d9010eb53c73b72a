"""
From a board that has nothing to one that is upgraded over the air: the real mpremote, the
simulated device's serial port.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import socketserver
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import serial
from serial.rfc2217 import PortManager

from tests.boards import PROMPT, WAIT_S, mpremote
from tools.deploy import files
from tools.deploy.board import Board, _problems, probe
from tools.deploy.line import Line, LineError, _answer_in, _why
from tools.device.device import Device
from tools.device.layout import OTA_4MIB
from tools.image import cli as image_cli
from tools.image.build import build
from tools.image.firmware import firmware
from tools.platform.local import LocalPlatform
from tools.toolchain import ROOT

pytest_plugins = "tests.board_fixtures"
SETTINGS = {
    "WIFI_SSID": "home",
    "MQTT_SERVER": "127.0.0.1",
    "PRODUCT_KEY": "pk",
    "IDENTIFIER": "lamp",
    "DEVICE_SECRET": "secret",
}


def deploy(port, *words, settings=SETTINGS, timeout=120):
    """Returns (exit status, what it printed, its errors)."""
    given = [f"--set={name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "tools", "deploy", "--port", port, *given, *words]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT
    )
    return done.returncode, done.stdout, done.stderr


def content(board):
    """All files of a board, and its flash."""
    found = {path: path.read_bytes() for path in board.fs.rglob("*") if path.is_file()}
    return found | {"flash": hashlib.sha256(board.flash_path.read_bytes()).hexdigest()}


# From the box to the first upgrade


def test_from_nothing_to_an_upgrade_over_the_air(tmp_path, board):
    with LocalPlatform(tmp_path / "platform") as platform:
        platform.add_product("pk")
        secret = platform.add_device("pk", "lamp")
        more = {"DEVICE_SECRET": secret, "MQTT_PORT": str(platform.mqtt_port)}
        status, out, err = deploy(board.serial.path, settings=SETTINGS | more)
        assert (status, err) == (0, "")
        assert "the board restarts" in out
        platform.wait_seen(["lamp"], WAIT_S)
        image = firmware(tmp_path / "1.1.0.bin", "1.1.0")
        batch = platform.upgrade(platform.upload("pk", image, "1.1.0"))
        (row,) = platform.wait(batch, WAIT_S)
        assert (row.status, row.version) == ("Succeeded", "1.1.0")
        assert board.running == "ota_1"
        for _ in range(3):  # a look is no crash: three of those would bring the old one back
            status, out, _ = deploy(board.serial.path, "--dry-run")
            assert (status, "has the package frozen" in out) == (0, True)
            board.wait("^.*ota: version 1.1.0", WAIT_S)
        assert board.running == "ota_1"
        assert platform.status(batch)[0].status == "Succeeded"
    assert board.counters["violations"] == 0


def test_a_line_that_loses_bytes(tmp_path, stock):
    with Device(tmp_path / "board", serial=True, drop=5000) as board:
        board.create(stock).start().wait(PROMPT, WAIT_S)
        status, out, err = deploy(board.serial.path, timeout=120)
        assert (status, err) == (0, "")
        assert int(re.search(r"(\d+) steps were done again", out)[1]) > 0
        for path, data in files.package().items():
            assert (board.fs / path[1:]).read_bytes() == data
        assert not list(board.fs.rglob("*.new"))
        board.wait("ota: version", WAIT_S)


def test_what_is_there_is_not_copied_again(board):
    assert deploy(board.serial.path)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in board.fs.rglob("*")}
    status, out, _ = deploy(board.serial.path)
    assert (status, "0 files copied" in out, "12 files are there already" in out) == (
        0,
        True,
        True,
    )
    assert {path: path.stat().st_mtime_ns for path in board.fs.rglob("*")} == before
    status, out, _ = deploy(board.serial.path, settings=SETTINGS | {"WIFI_SSID": "office"})
    assert "1 files copied" in out
    assert 'WIFI_SSID = "home"' in (board.fs / "boot.py.bak").read_text().replace("'", '"')
    assert "WIFI_SSID = 'office'" in (board.fs / "boot.py").read_text()


def test_settings_that_nobody_names_stay(board):
    more = {"PUBLIC_KEYS": "ab" * 256, "MQTT_TLS": "True"}
    assert deploy(board.serial.path, settings=SETTINGS | more)[0] == 0
    before = (board.fs / "boot.py").read_text()
    status, out, err = deploy(board.serial.path, settings={"WIFI_SSID": "office"})
    assert (status, err) == (0, "")
    assert "the old one to /boot.py.bak" in out
    after = (board.fs / "boot.py").read_text()
    assert after == before.replace("'home'", "'office'")
    status, out, _ = deploy(board.serial.path, settings={"WIFI_SSID": "other"})
    assert "/boot.py.bak is older" in out


def test_files_of_the_board_stay(board):
    board.put("boot.py", "print('mine')\n")
    board.put("data/log.txt", "important")
    board.put("lib/ota/agent.py", "raise SystemError")  # it would win over the .mpy
    board.put("lib/other.py", "x = 1\n")
    status, _, err = deploy(board.serial.path)
    assert (status, err) == (0, "")
    assert (board.fs / "boot.py.bak").read_text() == "print('mine')\n"
    assert (board.fs / "data/log.txt").read_text() == "important"
    assert (board.fs / "lib/other.py").read_text() == "x = 1\n"
    assert (board.fs / "lib/ota/agent.py.bak").exists()
    assert not (board.fs / "lib/ota/agent.py").exists()
    board.wait("ota: version", WAIT_S)


def test_boot_py_of_the_board_stays_when_nobody_asks(board):
    status, _, err = deploy(board.serial.path, settings={})
    assert (status, "the board has no boot.py" in err) == (2, True)
    board.put("boot.py", "print('mine')\n")
    assert deploy(board.serial.path, settings={})[::2] == (0, "")
    assert (board.fs / "boot.py").read_text() == "print('mine')\n"


def test_a_dry_run_changes_nothing(board):
    before = content(board)
    status, out, _ = deploy(board.serial.path, "--dry-run")
    assert (status, "nothing was changed" in out, "/lib/ota/agent.mpy" in out) == (0, True, True)
    assert content(board) == before


def test_a_deploy_that_is_cut_goes_on(board, monkeypatch):
    line = Line(board.serial.path)
    wanted = files.package() | {files.BOOT: b"print('new')\n", files.MAIN: b""}
    board.put("boot.py", "print('old')\n")
    calls, run = [], Line.run

    def cut(self, name, **values):
        calls.append(name)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return run(self, name, **values)

    with monkeypatch.context() as patch:
        patch.setattr(Line, "run", cut)
        with pytest.raises(KeyboardInterrupt):
            files.put(line, files.plan(probe(line, list(wanted)), wanted))
    assert (board.fs / "boot.py").read_text() == "print('old')\n"
    files.put(line, files.plan(probe(line, list(wanted)), wanted))
    assert (board.fs / "boot.py").read_text() == "print('new')\n"
    assert (board.fs / "boot.py.bak").read_text() == "print('old')\n"


# Boards that lack something


def table(*without):
    return tuple(row for row in OTA_4MIB if row[0] not in without)


def undefined(board):
    """The record that counts has no state, as a boot loader without rollback leaves it."""
    board.stop()
    with open(board.flash_path, "r+b") as flash:
        record = (1).to_bytes(4, "little") + b"\xff" * 24 + (0x4743989A).to_bytes(4, "little")
        flash.seek(0xD000)
        flash.write(record + b"\xff" * (0x1000 - 32))
    board.start().wait(PROMPT, WAIT_S)


def full(board):
    board.put("large.bin", "x" * 940_000)


@pytest.mark.parametrize(
    ("rows", "spoil", "words"),
    [
        (table("ota_1"), None, "no two slots for applications"),
        (OTA_4MIB, undefined, "the boot loader has no rollback"),
        (OTA_4MIB, full, "bytes do not fit"),
        (OTA_4MIB, lambda board: board.put("ota/x.py", ""), "/ota on the board would hide"),
    ],
)
def test_a_board_that_lacks_something(tmp_path, stock, rows, spoil, words):
    with Device(tmp_path / "board", serial=True) as board:
        board.create(stock, rows).start().wait(PROMPT, WAIT_S)
        if spoil:
            spoil(board)
        before = content(board)
        status, out, err = deploy(board.serial.path)
        assert status in (1, 2)
        assert words in err
        assert err.count("deploy: ") == 1
        assert content(board) == before


def test_a_board_without_mqtt(tmp_path, board):
    board.stop()
    board.create(build(tmp_path / "bare.bin", {"nothing": ""})).start().wait(PROMPT, WAIT_S)
    before = content(board)
    status, _, err = deploy(board.serial.path)
    assert (status, "mpremote mip install umqtt.simple" in err) == (1, True)
    assert content(board) == before


GOOD = Board(
    version=(1, 24, 0),
    machine="Generic ESP32S3 module with ESP32S3",
    mpy=6,
    free=900_000,
    files={},
    hides=[],
    modules=["umqtt.simple", "requests"],
    heap=100_000,
    table=[row[:3] + row[4:] for row in OTA_4MIB],
    state=2,
    running="ota_0",
)


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({}, "micropython", None),
        ({"version": (1, 19, 1)}, "micropython", "MicroPython 1.19.1 is too old"),
        ({"table": None, "machine": "Raspberry Pi Pico"}, "micropython", "no ESP32 (Raspberry"),
        ({"state": 1}, "micropython", "was on trial"),
        ({"state": None}, "micropython", "no boot record that counts"),
        ({"state": 0xFFFFFFFF}, "micropython", "has no rollback"),
        ({"table": [row for row in GOOD.table if row[0] != "otadata"]}, "micropython", "otadata"),
        ({"modules": ["umqtt.simple"]}, "micropython", "mip install requests"),
        ({}, "circuitpython", "runs circuitpython"),
    ],
)
def test_what_a_board_may_lack(change, name, words):
    found = list(_problems(dataclasses.replace(GOOD, **change), name))
    assert len(found) == bool(words)
    assert not words or words in found[0]


def test_bytecode_of_another_version():
    wanted = {"/lib/ota/agent.mpy": b"M\x06\0\0"}
    assert files.plan(GOOD, wanted).new == wanted
    with pytest.raises(files.DeployError, match="version 5, and this compiler writes version 6"):
        files.plan(dataclasses.replace(GOOD, mpy=5), wanted)


def test_chip_of_a_board():
    assert GOOD.chip == "esp32s3"
    assert dataclasses.replace(GOOD, machine="Generic ESP32 module with ESP32").chip == "esp32"
    for name, chip in (
        ("x with ESP32-C3", "esp32c3"),
        ("x with ESP32-C3FH4", "esp32c3"),
        ("x with ESP32-S2FN4R2", "esp32s2"),
        ("x with ESP32-S3-N8R8", "esp32s3"),
        ("x with ESP32-PICO-D4", "esp32"),
        ("x with ESP32-WROVER-B", "esp32"),
        ("Raspberry Pi Pico", ""),
    ):
        assert dataclasses.replace(GOOD, machine=name).chip == chip


def test_a_port_where_nobody_answers(tmp_path):
    master, slave = os.openpty()
    try:
        with pytest.raises(LineError, match="no MicroPython answers"):
            probe(Line(os.ttyname(slave), tries=1))
        with pytest.raises(LineError, match="there is no such port"):
            probe(Line("/dev/nowhere"))
        with pytest.raises(LineError, match="like /dev/ttyUSB0"):
            probe(Line("ttyUSB7"))
        with pytest.raises(LineError, match="cannot be opened"):
            probe(Line("socket://127.0.0.1:1", tries=1))
    finally:
        os.close(master)
        os.close(slave)


def test_a_board_whose_program_has_the_heap(board):
    # Stopped, it still has it, but for a piece in which no step finds room.
    hog = "hog = []\ntry:\n    while True: hog.append(bytearray(1000))\nexcept MemoryError: pass\n"
    board.put(
        "main.py", hog + "hog.pop()\nprint('full')\nimport time\nwhile True: time.sleep(1)\n"
    )
    board.reset()
    board.wait("full", WAIT_S)
    assert deploy(board.serial.path)[0] == 0
    assert (board.fs / "lib/ota/agent.mpy").exists()
    status, _, err = deploy(board.serial.path, settings={"WIFI_SSID": "office"})
    assert (status, err) == (0, "")
    boot = (board.fs / "boot.py").read_text()
    assert "WIFI_SSID = 'office'" in boot and "IDENTIFIER = 'lamp'" in boot


def test_no_board_at_all():
    # Not tried here: there may be one, with a program that somebody needs.
    assert _why("mpremote: no device found\r\n").startswith(
        "there is no board on USB: plug one in"
    )


# boot.py


def test_settings():
    text = files.boot((ROOT / "boot.py").read_text(), SETTINGS | {"MQTT_PORT": "8883"})
    found = {}
    exec(text[text.index("# The settings.") : text.index("# The network.")], found)
    assert {name: found[name] for name in SETTINGS} == SETTINGS
    assert found["MQTT_PORT"] == 8883
    assert "# where it may come from" in text  # comments stay


def test_text_stays_text():
    odd = {"WIFI_SSID": "12345678", "DEVICE_SECRET": 'it\'s "quoted" \\ \n'}
    text = files.boot((ROOT / "boot.py").read_text(), SETTINGS | odd)
    found = {}
    exec(text[text.index("# The settings.") : text.index("# The network.")], found)
    assert {name: found[name] for name in odd} == odd


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"NOSUCH": "1"}, "no setting NOSUCH: it has WIFI_SSID"),
        ({"wifi_ssid": "1"}, "no setting wifi_ssid"),
        ({".*": "1"}, "no setting"),
        ({"IDENTIFIER": ""}, "IDENTIFIER is empty"),
        ({"MQTT_SERVER": "mqtt://192.0.2.1:1883"}, "MQTT_SERVER must be a name or address"),
        ({"MQTT_PORT": "99999"}, "MQTT_PORT must be 1 to 65535"),
        ({"MQTT_PORT": "x"}, "a number is needed"),
        ({"MQTT_TLS": "maybe"}, "True or False is needed"),
        ({"IDENTIFIER": "my lamp"}, "IDENTIFIER may have"),
        ({"PUBLIC_KEYS": "zz"}, "PUBLIC_KEYS must be what"),
    ],
)
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(files.DeployError, match=re.escape(words)):
        files.boot((ROOT / "boot.py").read_text(), SETTINGS | settings)


def values(text, *names):
    found = {}
    exec(text[text.index("# The settings.") : text.index("# The network.")], found)
    return [found[name] for name in names]


def test_a_setting_keeps_its_type():
    given = {
        "MQTT_TLS": "no",
        "ALLOW_UNVERIFIED_TLS": "True",
        "MQTT_PORT": "8883",
        "URL_HOSTS": "files.example",
        "PUBLIC_KEYS": f'("{"ab" * 256}",)',  # as `sign keygen` prints it
    }
    text = files.boot((ROOT / "boot.py").read_text(), SETTINGS | given)
    assert values(text, *given) == [False, True, 8883, ("files.example",), ("ab" * 256,)]


@pytest.mark.parametrize(
    ("old", "name", "value", "want"),
    [
        ("PUBLIC_KEYS = ()", "PUBLIC_KEYS", "b" * 512, ("b" * 512,)),
        ('WIFI_PASSWORD = ""', "WIFI_PASSWORD", "new", "new"),
    ],
)
def test_settings_in_other_shapes(old, name, value, want):
    shapes = {
        "PUBLIC_KEYS": '(\n    "a1",\n    "a2",\n)',
        "WIFI_PASSWORD": '"old  #pw"  # of the office',
    }
    text = (ROOT / "boot.py").read_text()
    text = text.replace(old, f"{name} = {shapes[name]}", 1) + "\n"
    text = text.replace("# The network.", f"{name} = {shapes[name]}\n# The network.", 1)
    changed = files.boot(text, SETTINGS | {name: value})
    assert values(changed, name) == [want]  # the last one counts
    files.check_source("/boot.py", changed)


@pytest.mark.parametrize("option", ["--main", "--boot"])
def test_what_does_not_compile_is_not_sent(board, tmp_path, option):
    (tmp_path / "bad.py").write_text("x = 1\ndef (:\n")
    settings = {} if option == "--boot" else SETTINGS
    before = content(board)
    status, _, err = deploy(board.serial.path, option, str(tmp_path / "bad.py"), settings=settings)
    assert (status, "does not compile" in err) == (2, True)
    assert content(board) == before


# Room


def test_room_is_reckoned_in_blocks():
    wanted = {f"/lib/ota/{number}.mpy": b"M\x06" + bytes(100) for number in range(10)}
    enough = 10 * 4096 + 32 * 1024
    assert files.plan(dataclasses.replace(GOOD, free=enough), wanted).new == wanted
    with pytest.raises(files.DeployError, match="40,960 bytes do not fit"):
        files.plan(dataclasses.replace(GOOD, free=enough - 1), wanted)
    # What is there already needs no room, and what a cut deploy left is written over.
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in wanted.items()}
    assert files.plan(dataclasses.replace(GOOD, free=0, files=digests), wanted).new == {}
    sizes = {path + ".new": 102 for path in wanted}
    assert files.plan(dataclasses.replace(GOOD, free=32 * 1024, sizes=sizes), wanted).new


def test_the_oldest_file_is_kept(board):
    board.put("boot.py", "print('mine')\n")
    for ssid in ("one", "two"):
        assert deploy(board.serial.path, settings=SETTINGS | {"WIFI_SSID": ssid})[0] == 0
    assert (board.fs / "boot.py.bak").read_text() == "print('mine')\n"
    assert "'two'" in (board.fs / "boot.py").read_text()


def test_a_look_leaves_the_board_running(board):
    board.put("ota/x.py", "")  # so that it is refused
    board.put("main.py", "import time\nprint('runs')\nwhile True: time.sleep(1)\n")
    board.reset()
    for words in ((), ("--dry-run",)):
        board.wait("^runs|runs$", WAIT_S)
        deploy(board.serial.path, *words)
    board.wait("runs$", WAIT_S)


# The line


def test_an_answer_among_other_words():
    text = "hello"
    whole = f"<<<{hashlib.sha256(text.encode()).hexdigest()}{text}<|>"
    assert _answer_in(f">>> <<< noise\n{whole}\n>>>") == text
    assert _answer_in(whole[:-1]) is None
    assert _answer_in(whole.replace("hello", "hullo")) is None


def test_ctrl_d_is_a_soft_reset(board):
    board.put("boot.py", "print('boot runs')\n")
    board.put("main.py", "print('main runs')\n")
    serial = os.open(board.serial.path, os.O_RDWR | os.O_NOCTTY)
    try:
        os.write(serial, b"\r\x03\x04")
        board.wait("^MPY: soft reboot$", WAIT_S)
        board.wait("boot runs", WAIT_S)
        board.wait("main runs", WAIT_S)
        os.write(serial, b"\r\x01")
        board.wait("raw REPL; CTRL-B to exit", WAIT_S)
        os.write(serial, b"\x04")
        board.wait("^MPY: soft reboot$", WAIT_S)
        board.wait("boot runs", WAIT_S)
        board.wait("raw REPL; CTRL-B to exit", WAIT_S)  # and main.py does not
    finally:
        os.close(serial)
    assert [cause for _, cause in board.boots] == [1, 5, 5]
    assert board.console.count("main runs") == 1


def test_mpremote_as_with_a_board(board, tmp_path):
    (tmp_path / "a.py").write_text("X = 1\n")
    assert mpremote(board, "exec", "import os; print(os.getcwd(), os.listdir('/'))") == (
        0, "/ []\n",
    )  # fmt: skip
    assert mpremote(board, "mkdir", ":/lib")[0] == 0
    assert mpremote(board, "cp", str(tmp_path / "a.py"), ":/lib/a.py")[0] == 0
    assert (board.fs / "lib/a.py").read_text() == "X = 1\n"
    assert mpremote(board, "exec", "import a; print(a.X)") == (0, "1\n")
    assert mpremote(board, "reset")[0] == 0
    board.wait("ota_0 starts, cause 2", WAIT_S)


class Port(serial.Serial):
    """A pseudo-terminal as pyserial's port: it has no lines beside those for data."""

    dtr = rts = break_condition = cts = dsr = ri = cd = False


class Bridge(socketserver.BaseRequestHandler):
    """A board's port over TCP, as it is or by RFC 2217. Attributes of its server: path, telnet."""

    def handle(self):
        with Port(self.server.path, timeout=0.01) as port:
            manager, lock = None, threading.Lock()
            if self.server.telnet:
                connection = SimpleNamespace(write=self.request.sendall)
                manager = PortManager(port, connection)
            ended = threading.Event()

            def back():
                while not ended.is_set():
                    data = port.read(max(1, port.in_waiting))
                    if manager:
                        data = b"".join(manager.escape(data))
                    with contextlib.suppress(OSError), lock:
                        self.request.sendall(data)

            thread = threading.Thread(target=back)
            thread.start()
            with contextlib.suppress(OSError):
                while data := self.request.recv(1024):
                    port.write(b"".join(manager.filter(data)) if manager else data)
            ended.set()
            thread.join()


@pytest.mark.parametrize("telnet", [False, True])
def test_over_the_network(board, telnet):
    for path, data in files.package().items():  # there already: a connection takes its time
        (board.fs / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (board.fs / path[1:]).write_bytes(data)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Bridge) as server:
        server.path, server.telnet = board.serial.path, telnet
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kind = "rfc2217" if telnet else "socket"
        status, out, err = deploy(f"{kind}://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
    assert (status, err) == (0, "")
    assert "2 files copied" in out
    board.wait("ota: version", WAIT_S)


# An image for this board


def test_check_against_a_board(tmp_path, board, capsys):
    path = board.serial.path
    good = build(tmp_path / "good.bin", {"main": "print(1)"}, size=100_000)
    assert image_cli.main(["check", str(good), "--port", path]) == 0
    assert "yes" in capsys.readouterr().out
    other = build(tmp_path / "s3.bin", {"main": "print(1)"}, chip="esp32s3", size=100_000)
    assert image_cli.main(["check", str(other), "--port", path]) == 1
    assert "it is for esp32s3, and the board is esp32" in capsys.readouterr().out
