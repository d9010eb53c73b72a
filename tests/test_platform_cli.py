"""The command line against a platform that runs: what it prints, and its exit status."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.test_platform_server import WAIT_S, Player
from tools.codes import sentence
from tools.image.firmware import firmware
from tools.platform.cli import main
from tools.platform.client import TOKEN
from tools.platform.local import LocalPlatform


@pytest.fixture
def platform(tmp_path, request):
    with LocalPlatform(tmp_path, **getattr(request, "param", {})) as platform:
        yield platform


@pytest.fixture
def run(tmp_path, capsys):
    def run(*words, status=0):
        """Returns what was printed: the object with --json, else the text; an error's text."""
        got = main(["--folder", str(tmp_path), *words])
        out, err = capsys.readouterr()
        assert got == status, err
        if status == 2:
            assert out == ""
            return err
        return json.loads(out) if "--json" in words else out

    return run


def furnish(platform, tmp_path):
    """Product pk, firmware 1.1.0, and a device d1 that has told 1.0.0. Returns its player."""
    source = tmp_path / "app.bin"
    source.write_bytes(b"x")
    platform.add_product("pk")
    secret = platform.add_device("pk", "d1")
    platform.upload("pk", source, "1.1.0")
    player = Player(platform.mqtt_port, "d1", secret)
    assert player.ready() == "subscribed"
    player.version("1.0.0")
    platform.wait_seen(["d1"], WAIT_S)
    return player


def test_from_a_product_to_a_version(platform, run, tmp_path):
    source = tmp_path / "app.bin"
    source.write_bytes(b"x" * 1000)
    assert run("product", "add", "pk", "--name", "Lamp") == "pk\n"
    assert run("product", "list", "--json") == [{"key": "pk", "name": "Lamp", "signed": False}]
    secret = run("device", "add", "pk", "d1", "--json")["secret"]
    settings = run("device", "add", "pk", "d2").splitlines()
    assert settings[:2] == ['PRODUCT_KEY = "pk"', 'IDENTIFIER = "d2"']
    assert secret not in run("device", "list")
    assert [row["secret"] for row in run("device", "list", "--secrets", "--json")][0] == secret
    upload = ("firmware", "upload", str(source), "--product", "pk", "--version", "1.1.0")
    assert run(*upload, "--name", "first", "--json") == {"id": 1, "name": "first"}
    (listed,) = run("firmware", "list", "--json")
    assert listed["size"] == 1000 and "removed" not in listed

    player = Player(platform.mqtt_port, "d1", secret)
    assert player.ready() == "subscribed"
    player.version("1.0.0")
    platform.wait_seen(["d1"], WAIT_S)
    assert [row["version"] for row in run("device", "list", "--json")] == ["1.0.0", ""]

    def upgrade():
        command = player.take("upgrade")
        player.say("upgrade_reply", {}, command["msgId"], 200)
        player.progress(command["msgId"], 50)
        player.version("1.1.0")

    thread = threading.Thread(target=upgrade)
    thread.start()
    text = run("upgrade", "first", "d1", "d2", "--watch")
    thread.join()
    player.end()
    assert "d2: inactive" in text
    assert "d1 Succeeded" in text
    batch = run("status", "1", "--json")
    assert (batch["state"], batch["version"], batch["retries"]) == ("Completed", "1.1.0", 0)
    assert [row["status"] for row in batch["rows"]] == ["Succeeded"]
    assert run("status", "--json")[0]["firmware"] == "first"
    assert "Upgrading" in run("device", "log", "d1")
    assert "Completed" in run("status", "1")


def test_many_devices_by_a_file(platform, run, tmp_path, monkeypatch):
    platform.add_product("pk")
    names = tmp_path / "names"
    names.write_text("d1\n\n d2 \n")
    rows = [line.split(",") for line in run("device", "import", "pk", str(names)).splitlines()]
    assert [row[:2] for row in rows] == [["pk", "d1"], ["pk", "d2"]]
    known = {
        row["identifier"]: row["secret"] for row in run("device", "list", "--secrets", "--json")
    }
    assert {name: secret for _, name, secret in rows} == known
    many = [f"n{number}" for number in range(1001)]  # more than one call
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(["d1", *many])))
    made = run("device", "import", "pk", "-", "--json")
    assert [row["identifier"] for row in made] == ["d1", *many]
    assert made[0] == {"product": "pk", "identifier": "d1", "secret": known["d1"]}
    assert len(platform.devices()) == 1000  # a page of them
    names.write_text("\n")
    assert "no identifier" in run("device", "import", "pk", str(names), status=2)


def test_a_file_that_no_esp32_takes(platform, tmp_path, capsys):
    platform.add_product("pk")
    good = firmware(tmp_path / "good.bin", "1.1.0")
    elf = tmp_path / "elf.bin"
    elf.write_bytes(b"\x7fELF" + bytes(100))
    for number, (path, said) in enumerate(((good, ""), (elf, "warning: an ESP32 refuses this"))):
        words = ["upload", str(path), "--product", "pk", "--version", f"1.{number}"]
        assert main(["--folder", str(tmp_path), "firmware", *words]) == 0
        err = capsys.readouterr().err
        assert err.startswith(said) and bool(err) == bool(said)
    assert "an ELF file" in err


def test_what_is_removed(platform, run, tmp_path):
    player = furnish(platform, tmp_path)
    text = run("device", "secret", "d1")
    assert text.splitlines()[:2] == ['PRODUCT_KEY = "pk"', 'IDENTIFIER = "d1"']
    assert platform.platform.registry.devices(secrets=True)[0]["secret"] in text
    assert player.ready() == "Not authorized"
    player.end()
    platform.add_device("pk", "d2")
    assert run("device", "remove", "d1", "d2") == "d1: removed\nd2: removed\n"
    assert run("device", "list", "--json") == []
    assert run("firmware", "remove", "pk-1.1.0", "--json") == {"removed": "pk-1.1.0"}
    assert run("firmware", "list", "--json") == []


@pytest.mark.parametrize("platform", [{"reply_s": 2.0}], indirect=True)
def test_a_watched_upgrade_that_fails_ends_with_1(platform, run, tmp_path):
    player = furnish(platform, tmp_path)
    text = run("upgrade", "1", "--all", "--watch", "--json", status=1)
    assert [row["remark"] for row in text["rows"]] == ["Push Failed"]

    def refuse():
        command = player.take("upgrade")
        player.say("upgrade_reply", {}, command["msgId"], 416)

    player.take("upgrade")
    thread = threading.Thread(target=refuse)
    thread.start()
    text = run("upgrade", "1", "--all", "--watch", status=1)
    thread.join()
    assert "d1 Failed: Push Failed (416)" in text
    assert sentence(416)[:30] in text
    run("upgrade", "1", "--all", "--retries", "1")
    assert run("abort", "3") == "Aborted\n"
    assert "Push Failed: it did not answer in time" in run("status", "1", "--watch", status=1)
    player.end()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["device", "add", "none", "d1"], "no product none"),
        (["firmware", "upload", "none.bin", "--product", "p", "--version", "1"], "No such file"),
        (["upgrade", "none", "--all"], "no firmware none"),
        (["upgrade", "none"], "say which devices"),
        (["upgrade", "none", "d1", "--all"], "say which devices"),
        (["status", "7"], "no batch 7"),
        (["status", "--watch"], "say which batch"),
        (["abort", "7"], "no batch 7"),
        (["device", "log", "d9"], "no device d9"),
        (["device", "secret", "d9"], "no device d9"),
        (["device", "remove", "d9"], "no device d9"),
        (["device", "import", "pk", "none"], "No such file"),
        (["firmware", "remove", "none"], "no firmware none"),
        (["firmware", "remove", "7"], "no firmware 7"),
        (["serve", "--broker", "nonsense"], "broker 'nonsense'"),
        (["serve", "--public-url", "nonsense"], "begins with http"),
    ],
)
def test_bad_input_ends_with_2_and_a_sentence(platform, run, words, sentence):
    assert sentence in run(*words, status=2)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["abort", "x"],
        ["serve", "--mqtt-port", "65536"],
        ["serve", "--throttle", "0"],
        ["upgrade", "f", "--policy", "loud"],
    ],
)
def test_wrong_words_end_with_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_without_a_platform(run):
    assert "platform serve" in run("status", status=2)


class Served:
    """`serve` as a process of its own."""

    def __init__(self, folder, *options):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tools", "platform", "--folder", folder, "serve", "--json"]
            + ["--http-port", "0", "--mqtt-port", *(options or ["0"])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.ready = json.loads(self.process.stdout.readline())
        self.port = int(self.ready["mqtt"].rpartition(":")[2])

    def end(self, number):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, out + err


def test_a_platform_that_is_killed_goes_on_where_it_was(run, tmp_path):
    source = tmp_path / "app.bin"
    source.write_bytes(b"x")
    served = Served(tmp_path)
    run("product", "add", "pk")
    secret = run("device", "add", "pk", "d1", "--json")["secret"]
    run("firmware", "upload", str(source), "--product", "pk", "--version", "1.1.0")
    player = Player(served.port, "d1", secret)
    try:
        assert player.ready() == "subscribed"
        player.version("1.0.0")
        wait_until(lambda: run("device", "list", "--json")[0]["version"] == "1.0.0")
        run("upgrade", "1", "d1")
        command = player.take("upgrade")
        player.progress(command["msgId"], 30)
        wait_until(lambda: run("status", "1", "--json")["rows"][0]["progress"] == 30)
        before = run("status", "1", "--json")

        served.end(signal.SIGKILL)
        assert "no platform runs" in run("status", status=2)  # its api.json is still there
        served = Served(tmp_path, str(served.port))
        assert run("status", "1", "--json") == before
        assert player.ready() == "subscribed"
        player.version("1.1.0")
        wait_until(lambda: run("status", "1", "--json")["state"] == "Completed")
    finally:
        player.end()
        ended = served.end(signal.SIGTERM)
    assert ended == (0, "")  # and it said nothing on its way
    assert not os.path.exists(tmp_path / "api.json")


def wait_until(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_roll_out_and_a_retry(platform, run, tmp_path):
    player = furnish(platform, tmp_path)
    other = Player(platform.mqtt_port, "d2", platform.add_device("pk", "d2"))
    assert other.ready() == "subscribed"
    other.version("1.0.0")
    platform.wait_seen(["d2"], WAIT_S)
    assert "they rise" in run("upgrade", "1", "--all", "--shares", "50,20", status=2)
    assert "failures" in run("upgrade", "1", "--all", "--failures", "101", status=2)
    run("upgrade", "1", "--all", "--shares", "10,100", "--failures", "30")
    batch = run("status", "1", "--json")
    assert (batch["shares"], batch["failures"], batch["devices"]) == ("10,100", 30, 2)
    first = {"d1": player, "d2": other}
    wait_until(lambda: any(not item.inbox.empty() for item in first.values()))
    (name,) = [name for name, item in first.items() if not item.inbox.empty()]
    assert "did not fail" in run("retry", "1", name, status=2)
    first[name].say("upgrade_reply", {}, first[name].take("upgrade")["msgId"], 413)
    wait_until(lambda: run("status", "1", "--json")["state"] == "Aborted")
    assert "1 of the first 1 devices failed" in run("status", "1")
    wait_until(lambda: run("status", "1", "--json")["statuses"] == {"Failed": 2})
    assert "is over" in run("retry", "1", name, status=2)
    run("upgrade", "1", "d1")
    player.say("upgrade_reply", {}, player.take("upgrade")["msgId"], 413)
    wait_until(lambda: run("status", "2", "--json")["state"] == "Completed")
    assert run("retry", "2", "d1") == "d1: To be Retried\n"
    player.take("upgrade")
    player.version("1.1.0")
    wait_until(lambda: run("status", "2", "--json")["statuses"] == {"Succeeded": 1})
    assert run("status", "2", "--json")["rows"][0]["retries"] == 1
    player.end()
    other.end()


def test_operators(platform, run, tmp_path, monkeypatch):
    file = tmp_path / "password"
    file.write_text("correct horse battery\n")
    assert run("operator", "add", "ann", "--password-file", str(file)) == "ann\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("another password\n"))
    run("operator", "add", "bob")
    assert [row["name"] for row in run("operator", "list", "--json")] == ["ann", "bob"]
    assert "exists already" in run(
        "operator", "add", "ann", "--password-file", str(file), status=2
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    assert "10 to 200" in run("operator", "password", "bob", status=2)
    monkeypatch.setattr("sys.stdin", io.StringIO("one more password\n"))
    run("operator", "password", "bob")
    run("operator", "remove", "bob")
    assert "no operator bob" in run("operator", "remove", "bob", status=2)
    file.unlink()
    assert "No such file" in run("operator", "add", "eve", "--password-file", str(file), status=2)


def test_a_platform_elsewhere(platform, run, tmp_path, monkeypatch):
    platform.add_product("pk")
    token = run("token", "add", "ci").strip()
    assert [row["name"] for row in run("token", "list", "--json")] == ["ci"]
    url = f"http://127.0.0.1:{platform.http_port}"
    (tmp_path / "api.json").rename(tmp_path / "kept")
    assert "no platform runs" in run("product", "list", status=2)
    assert TOKEN in run("--url", url, "product", "list", status=2)
    monkeypatch.setenv(TOKEN, token)
    assert run("--url", url, "product", "list", "--json")[0]["key"] == "pk"
    assert "no platform answers" in run("--url", "http://127.0.0.1:1", "status", status=2)
    (tmp_path / "kept").rename(tmp_path / "api.json")
    run("token", "remove", "ci")
    assert "the token is wrong" in run("--url", url, "product", "list", status=2)


def test_long_lists_come_in_pages(platform, run, monkeypatch):
    platform.add_product("pk")
    for number in range(7):
        platform.add_device("pk", f"d{number}")
    monkeypatch.setattr("tools.platform.client._PAGE", 3)
    rows = run("device", "list", "--json")
    assert [row["identifier"] for row in rows] == [f"d{number}" for number in range(7)]
