"""Topic rights: in the embedded broker, and in a mosquitto with the files that we write for it."""

import contextlib
import io
import os
import queue
import socket
import time

import paho.mqtt.client as mqtt
import pytest
import sqlalchemy as sa

from tests.test_platform_server import WAIT_S, Player
from tools import servers
from tools.platform import broker, rights
from tools.platform.cli import main
from tools.platform.local import LocalPlatform
from tools.platform.model import PlatformError

pytest_plugins = "tests.databases"
LOGIN = "platform", "its-own-secret"


class Client:
    """A device that tries things."""

    def __init__(self, port, identifier, secret, product="pk", will=None, clean=True, name=None):
        self.heard = queue.Queue()
        self._answers, self.lost = queue.Queue(), 0
        version = mqtt.CallbackAPIVersion.VERSION2
        self._client = client = mqtt.Client(version, identifier, clean_session=clean)
        client.username_pw_set(f"{product}&{name or identifier}", secret)
        if will:
            client.will_set(*will)
        client.on_connect = lambda *arguments: self._answers.put(arguments[3])
        client.on_subscribe = lambda *arguments: self._answers.put(arguments[3][0])
        client.on_message = lambda _c, _u, message: self.heard.put(message.topic)
        client.on_disconnect = self._on_disconnect
        client.connect("127.0.0.1", port)
        client.loop_start()
        self.entered = not self._answers.get(timeout=WAIT_S).is_failure

    def _on_disconnect(self, *_):
        self.lost += 1

    def subscribe(self, topic):
        """True when the broker granted it."""
        self._client.subscribe(topic, 1)
        return not self._answers.get(timeout=WAIT_S).is_failure

    def publish(self, topic, payload="{}", retain=False):
        self._client.publish(topic, payload, 1, retain).wait_for_publish(WAIT_S)

    def die(self):
        """Without a word, so that its will is carried out."""
        self._client.loop_stop()
        if self._client.socket():
            self._client.socket().close()

    def end(self):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def fleet(tmp_path, request):
    """A platform with devices d1 and d2, and the port of its broker, embedded or mosquitto."""
    with contextlib.ExitStack() as stack:
        folder = tmp_path / "platform"
        port, its_own = servers.free_port(), servers.free_port()
        outside = request.param == "mosquitto"
        options = {"broker": f"mqtt://{':'.join(LOGIN)}@127.0.0.1:{its_own}"} if outside else {}
        platform = stack.enter_context(LocalPlatform(folder, **options))
        platform.add_product("pk")
        secrets = {name: platform.add_device("pk", name) for name in ("d1", "d2")}
        if outside:
            files = tmp_path / "rights"
            words = ["--folder", str(folder), "mosquitto", str(files)]
            with contextlib.redirect_stdout(io.StringIO()) as said:
                assert main([*words, "--login", ":".join(LOGIN)]) == 0
            lines = said.getvalue().splitlines()
            assert lines[:2] == ["listener 1884 127.0.0.1", "listener 1883"]
            lines[1] = f"listener {port} 127.0.0.1"
            stack.enter_context(servers.mosquitto(tmp_path / "broker", *lines[1:], port=its_own))
            platform.platform.engine.until(lambda: platform.platform.engine.connected, WAIT_S)
        else:
            port = platform.mqtt_port
        yield platform, port, secrets


both = pytest.mark.parametrize("fleet", ["embedded", "mosquitto"], indirect=True)


@both
def test_a_device_gets_in_with_its_own_secret_only(fleet):
    _, port, secrets = fleet
    for identifier, secret, product, enters in (
        ("d1", secrets["d1"], "pk", True),
        ("d1", secrets["d2"], "pk", False),
        ("d1", "", "pk", False),
        ("d1", secrets["d1"], "other", False),
        ("d3", secrets["d1"], "pk", False),
    ):
        client = Client(port, identifier, secret, product)
        assert client.entered is enters, (identifier, product)
        client.end()


@both
def test_a_device_hears_nothing_of_another(fleet):
    platform, port, secrets = fleet
    client, victim = (Client(port, name, secrets[name]) for name in ("d1", "d2"))
    assert victim.subscribe("/sys/pk/d2/ota/firmware/upgrade")
    for topic in (
        "/sys/pk/d2/ota/firmware/upgrade",
        "/sys/pk/+/ota/firmware/upgrade",
        "/sys/pk/#",
        "/sys/#",
        "#",
        "+/+/+/+/+/+/+",
        "/sys/pk/d1/../d2/#",
    ):
        client.subscribe(topic)  # some brokers grant it, and then send nothing
    assert client.subscribe("/sys/pk/d1/ota/firmware/#")
    platform.publish("/sys/pk/d2/ota/firmware/upgrade", '{"msgId": "1"}')
    assert victim.heard.get(timeout=WAIT_S) == "/sys/pk/d2/ota/firmware/upgrade"
    platform.publish("/sys/pk/d1/ota/firmware/upgrade", '{"msgId": "2"}')
    assert client.heard.get(timeout=WAIT_S) == "/sys/pk/d1/ota/firmware/upgrade"
    assert client.heard.empty()
    client.end()
    victim.end()


@both
def test_a_device_says_nothing_for_another(fleet):
    platform, port, secrets = fleet
    player = Player(port, "d2", secrets["d2"])
    assert player.ready() == "subscribed"
    player.version("1.0.0")
    platform.wait_seen(["d2"], WAIT_S)
    client = Client(port, "d1", secrets["d1"])
    told = '{"msgId": "1", "data": {"firmwareVersion": "6.6.6"}}'
    client.publish("/sys/pk/d2/ota/firmware/version", told)
    client.publish("/sys/pk/d2/ota/firmware/upgrade", told)
    client.end()
    client = Client(port, "d1", secrets["d1"])  # a broker may have closed it
    client.publish("/sys/pk/d1/ota/firmware/version", told)
    platform.wait_seen(["d1"], WAIT_S)  # so the others would have come
    versions = {row["identifier"]: row["version"] for row in platform.devices()}
    assert versions == {"d1": "6.6.6", "d2": "1.0.0"}
    assert player.inbox.empty()
    client.end()
    player.end()


@both
def test_a_device_does_not_take_the_place_of_another(fleet):
    _, port, secrets = fleet
    victim = Client(port, "d2", secrets["d2"])
    assert victim.subscribe("/sys/pk/d2/#")
    thief = Client(port, "d2", secrets["d1"], name="d1")
    victim.publish("/sys/pk/d2/mine")
    assert victim.heard.get(timeout=WAIT_S) == "/sys/pk/d2/mine"
    assert victim.lost == 0
    thief.end()
    victim.end()


@both
def test_a_device_leaves_no_will_to_another(fleet):
    platform, port, secrets = fleet
    player = Player(port, "d2", secrets["d2"])
    assert player.ready() == "subscribed"
    player.version("1.0.0")
    platform.wait_seen(["d2"], WAIT_S)
    told = '{"msgId": "1", "data": {"firmwareVersion": "6.6.6"}}'
    for topic in (
        "/sys/pk/d2/ota/firmware/version",
        "/sys/pk/d2/ota/firmware/upgrade",
        "/sys/pk/d1/ota/firmware/version",
    ):
        Client(port, "d1", secrets["d1"], will=(topic, told, 1)).die()
    platform.wait_seen(["d1"], WAIT_S)  # its own will; so the others would have come
    versions = {row["identifier"]: row["version"] for row in platform.devices()}
    assert versions == {"d1": "6.6.6", "d2": "1.0.0"}
    assert player.inbox.empty()
    player.end()


@pytest.mark.parametrize("fleet", ["embedded"], indirect=True)
def test_the_embedded_broker_retains_nothing_of_a_device(fleet):
    # Whoever could, could fill its memory.
    platform, port, secrets = fleet
    topic = "/sys/pk/d1/mine/%d"
    client = Client(port, "d1", secrets["d1"])
    client.publish(topic % 1, retain=True)
    client.end()
    Client(port, "d1", secrets["d1"], will=(topic % 2, "{}", 1, True)).die()
    platform.publish(topic % 3, "{}", retain=True)
    client = Client(port, "d1", secrets["d1"])
    assert client.subscribe("/sys/pk/d1/mine/#")
    assert client.heard.get(timeout=WAIT_S) == topic % 3
    assert client.heard.empty()
    client.end()


# What one device can make the embedded broker keep

embedded = pytest.mark.parametrize("fleet", ["embedded"], indirect=True)


@embedded
def test_a_device_has_a_bounded_number_of_filters(fleet):
    _, port, secrets = fleet
    client = Client(port, "d1", secrets["d1"])
    granted = [client.subscribe(f"/sys/pk/d1/{number}") for number in range(30)]
    assert granted == [True] * 20 + [False] * 10
    assert client.subscribe("/sys/pk/d1/3")  # one that it has
    client.end()
    client = Client(port, "d1", secrets["d1"])
    assert client.subscribe("/sys/pk/d1/30")  # a new connection begins anew
    client.end()


@embedded
def test_who_subscribes_while_a_message_goes_out_harms_nobody(fleet):
    platform, _, _ = fleet
    subscriptions = platform.platform._broker._amqtt._subscriptions
    assert subscriptions
    for name, who in subscriptions.items():
        subscriptions[name + "x"] = []
        subscriptions.get(name).append("somebody")
        assert "somebody" not in who
    for name in subscriptions:
        if name.endswith("x"):
            del subscriptions[name]
        else:
            subscriptions[name].remove("somebody")


@embedded
def test_what_is_retained_for_one_device_is_not_told_another(fleet):
    platform, port, secrets = fleet
    topic = "/sys/pk/d2/ota/firmware/upgrade"
    platform.publish(topic, "{}", retain=True)
    victim = Client(port, "d2", secrets["d2"])
    assert victim.subscribe(topic)
    assert victim.heard.get(timeout=WAIT_S) == topic
    client = Client(port, "d1", secrets["d1"])
    assert client.subscribe("/sys/pk/d1/#")
    client.publish("/sys/pk/d1/echo")
    assert client.heard.get(timeout=WAIT_S) == "/sys/pk/d1/echo"
    assert client.heard.empty()
    client.end()
    victim.end()


@embedded
def test_no_session_is_kept(fleet):
    platform, port, secrets = fleet
    topic = "/sys/pk/d1/mine"
    client = Client(port, "d1", secrets["d1"], clean=False)
    assert client.subscribe("/sys/pk/d1/#")
    client.end()
    platform.publish(topic, "{}")
    client = Client(port, "d1", secrets["d1"], clean=False)
    client.publish(topic)
    assert client.subscribe("/sys/pk/d1/#")
    client.publish("/sys/pk/d1/end")
    assert client.heard.get(timeout=WAIT_S) == "/sys/pk/d1/end"
    client.end()


def connected(port, secret):
    """A device that speaks for itself: a socket that is logged in."""
    sock = socket.create_connection(("127.0.0.1", port), WAIT_S)
    texts = b"d1", b"pk&d1", secret.encode()
    body = b"\0\4MQTT\4\xc2\0\x3c" + b"".join(
        len(text).to_bytes(2, "big") + text for text in texts
    )
    sock.sendall(b"\x10" + bytes((len(body),)) + body)
    assert sock.recv(4) == b"\x20\2\0\0"
    return sock


@embedded
def test_what_was_said_before_the_end_is_heard(fleet):
    platform, port, secrets = fleet
    topic, said = b"/sys/pk/d1/ota/firmware/version", [f"1.0.{number}" for number in range(20)]
    with connected(port, secrets["d1"]) as sock:
        for number, version in enumerate(said, 1):
            payload = b'{"msgId": "1", "data": {"firmwareVersion": "%s"}}' % version.encode()
            body = len(topic).to_bytes(2, "big") + topic + number.to_bytes(2, "big") + payload
            sock.sendall(b"\x32" + bytes((len(body),)) + body)
        acknowledged = 0
        while acknowledged < 4 * len(said):  # and it goes at once, as who restarts does
            acknowledged += len(sock.recv(1000))
    engine = platform.platform.engine
    engine.until(lambda: len(platform.events("d1")) >= len(said), WAIT_S)
    assert [event["text"] for event in platform.events("d1")] == said


@embedded
@pytest.mark.parametrize("kind", [0x82, 0xA2, 0x30])
def test_a_packet_that_is_too_long_ends_the_connection(fleet, kind):
    _, port, secrets = fleet
    with connected(port, secrets["d1"]) as sock:
        sock.sendall(bytes((kind,)) + b"\x80\x80\x02")  # 32 KiB are to come
        assert sock.recv(1) == b""


def test_who_reads_nothing_is_shown_out(tmp_path, monkeypatch):
    monkeypatch.setattr(broker, "_LOOK_S", 0.1)
    with LocalPlatform(tmp_path) as platform:
        platform.add_product("pk")
        secret = platform.add_device("pk", "d1")
        with connected(platform.mqtt_port, secret) as sock:
            topic = b"/sys/pk/d1/#"
            sock.sendall(b"\x82\x11\0\1\0\x0c" + topic + b"\0")
            assert sock.recv(5) == b"\x90\3\0\1\0"
            inside = platform.platform._broker._inside
            end = time.monotonic() + WAIT_S
            while "d1" in inside and time.monotonic() < end:
                for _ in range(50):
                    platform.publish("/sys/pk/d1/x", "x" * 16000)
                time.sleep(0.1)
            assert "d1" not in inside
        client = Client(platform.mqtt_port, "d1", secret)  # the next one is served
        assert client.subscribe("/sys/pk/d1/#")
        platform.publish("/sys/pk/d1/y", "{}")
        while client.heard.get(timeout=WAIT_S) != "/sys/pk/d1/y":
            pass
        assert len(platform.platform._broker._amqtt._tasks_queue) < 50
        client.end()


def test_a_name_that_is_no_text_is_refused(tmp_path, postgres):
    # PostgreSQL holds no NUL.
    with LocalPlatform(tmp_path, database=postgres()) as platform:
        client = Client(platform.mqtt_port, "d1", "x", "p\0k")
        assert not client.entered
        client.end()


def test_while_the_data_base_is_away_nobody_comes_in(tmp_path, monkeypatch):
    with LocalPlatform(tmp_path) as platform:

        def fails():
            raise sa.exc.OperationalError("x", {}, Exception("away"))

        monkeypatch.setattr(platform.platform._store, "begin", fails)
        with socket.create_connection(("127.0.0.1", platform.mqtt_port), WAIT_S) as sock:
            sock.sendall(b"\x10\x1a\0\4MQTT\4\xc2\0\x3c\0\2d1\0\5pk&d1\0\1x")
            assert sock.recv(4) == b"\x20\2\0\3"


def test_files_for_mosquitto_hold_no_secret(tmp_path):
    rights.write(tmp_path, [("pk", "d1", "the-secret")], LOGIN)
    texts = [path.read_text() for path in sorted(tmp_path.iterdir())]
    assert len(texts) == 2
    assert not any("secret" in text for text in texts)
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def test_a_device_that_mosquitto_cannot_know(tmp_path):
    rights.write(tmp_path, [("pk", "d1", "the-secret")], LOGIN)
    before = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    with pytest.raises(PlatformError, match="'pk&a:b': .* colon"):
        rights.write(tmp_path, [("pk", "d1", "s"), ("pk", "a:b", "s")], LOGIN)
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == before


def test_files_for_mosquitto_belong_to_who_has_the_folder(tmp_path):
    folder = tmp_path / "rights"
    folder.mkdir()
    owner = 65534 if os.geteuid() == 0 else os.getuid()  # nobody; root alone gives files away
    os.chown(folder, owner, -1)
    for _ in range(2):
        rights.write(folder, [("pk", "d1", "the-secret")], LOGIN)
        assert {
            (file.stat().st_uid, file.stat().st_mode & 0o777) for file in folder.iterdir()
        } == {(owner, 0o600)}


@pytest.mark.parametrize("login", ["platform", ":x", "x:", "a&b:c"])
def test_a_login_for_mosquitto_that_is_none(tmp_path, login, capsys):
    with LocalPlatform(tmp_path / "platform") as platform:
        words = ["--folder", str(platform.platform.folder), "mosquitto", str(tmp_path / "to")]
        assert main([*words, "--login", login]) == 2
    assert "--login" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()
