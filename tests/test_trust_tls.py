"""
TLS on whole devices, over real handshakes: with the pinned CA it upgrades; each server that is not
the right one is refused before the first erase, with a code of its own.

Certificates: tests/certificates.py. The device's clock stands at 2000 until NTP sets it; mbedTLS
compares with the host's. Source: docs/trust.md, "TLS".
"""

import re
import socket
import ssl
import threading

import pytest

from tests.bench import app, until
from tests.certificates import Authority
from tools.device.net import Relay

pytest_plugins = "tests.bench_fixtures"

HASTY = "tries=1, stall_s=1"
# What is wrong with a certificate: its code, how it is issued.
WRONG = {
    "expired": (491, {"begins": -9, "ends": -1}),
    "not yet valid": (492, {"begins": 2}),
    "another host": (493, {"host": "elsewhere.example"}),
    "unknown CA": (494, {"stranger": True}),
    "self-signed": (495, {"itself": True}),
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


def issue(authority, folder, stranger=False, **how) -> ssl.SSLContext:
    return (Authority(folder, "Somebody else") if stranger else authority).issue("bad", **how)


def https(bench, relay: Relay) -> str:
    """The URL of the next firmware, through another relay."""
    number = bench.platform.upload("pk1", bench.images("1.1.0"), "1.1.0")
    path = bench.platform.url_of(number).split("/", 3)[3]
    return f"https://localhost:{relay.port}/{path}"


def flash_of(device) -> bytes:
    return (device.folder / "flash.bin").read_bytes()[0xD000:0x310000]


def refused(bench, device, url: str) -> str:
    """How a download from there ends; no byte of flash is another."""
    before, flash = len(bench.heard("progress")), flash_of(device)
    msg_id = f"id-{before}"
    bench.say(bench.command(msg_id, bench.images("1.1.0"), "1.1.0", url=url))
    ended = bench.hear("progress", "(failed|succ).*", after=before)[0]
    assert flash_of(device) == flash
    return ended


@pytest.mark.parametrize("form", ["PEM file", "DER file", "DER bytes"])
def test_upgrade_over_tls_with_a_pinned_ca(make_bench, images, authority, form):
    bench = make_bench(tls=authority.issue())
    ca = authority.der if form == "DER bytes" else "ca.crt"
    device = bench.device(
        images("1.0.0"),
        seen=False,
        boot={
            "MQTT_SERVER": "localhost",
            "MQTT_TLS": True,
            "CA": ca,
        },
    )
    if ca == "ca.crt":
        device.stop()
        data = authority.der if form == "DER file" else authority.pem.read_bytes()
        device.put("ca.crt", data)
        device.start()
    bench.hear("get", "")
    batch = bench.offer(images("1.1.0"), "1.1.0")
    assert bench.result(batch) == [("Succeeded", "", None, "1.1.0")]
    # It went on where the connection broke, over TLS too.
    bench.web.cut_after(100_000)
    batch = bench.offer(images("1.2.0"), "1.2.0")
    assert bench.result(batch) == [("Succeeded", "", None, "1.2.0")]
    ranges = [access.range for access in bench.platform.access_log[1:]]
    assert ranges[0] == ""
    assert re.fullmatch(r"bytes=\d+-", ranges[1])


@pytest.mark.parametrize("what", WRONG)
def test_wrong_file_server_is_refused_before_the_first_erase(
    bench, images, authority, tmp_path, what
):
    code, how = WRONG[what]
    device = bench.device(images("1.0.0", app=app(HASTY)), boot={"CA": authority.der})
    context = issue(authority, tmp_path / "ca", **how)
    with Relay("127.0.0.1", bench.platform.http_port, tls=context) as relay:
        assert refused(bench, device, https(bench, relay)) == f"failed 0 {code}"
    assert bench.platform.access_log == []


@pytest.mark.parametrize("what", ["expired", "another host", "unknown CA", "self-signed"])
def test_wrong_broker_is_told_nothing(bench, images, authority, tmp_path, what):
    code, how = WRONG[what]
    context = issue(authority, tmp_path / "ca", **how)
    with Relay("127.0.0.1", bench.platform.mqtt_port, tls=context) as relay:
        quick = app("", ("> 15000", "> 1000"))
        device = bench.device(
            images("1.0.0", app=quick),
            seen=False,
            boot={
                "MQTT_SERVER": "localhost",
                "MQTT_PORT": relay.port,
                "MQTT_TLS": True,
                "CA": authority.der,
            },
        )
        device.wait(rf"main.py: no connection to localhost {relay.port} {code}")
    assert bench.platform.devices()[0]["seen"] is None


class Raw:
    """A TCP server that answers what a test says. connections: how many came."""

    def __init__(self, handle):
        self.connections = 0
        self._handle = handle
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _run(self):
        while True:
            try:
                sock = self._listener.accept()[0]
            except OSError:
                return
            self.connections += 1
            with sock:
                sock.settimeout(30)
                try:
                    self._handle(sock)
                except OSError:
                    pass


def cut(sock):
    """In the middle of the handshake."""
    sock.recv(4096)


def half(sock):
    """Behind the first half of a record."""
    sock.recv(4096)
    sock.sendall(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03")


def garbage(sock):
    sock.recv(4096)
    sock.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n" * 20)
    sock.recv(4096)


def silent(sock):
    while sock.recv(4096):
        pass


def drips(sock):
    """A record that never ends: each byte comes soon enough, all of them do not."""
    sock.recv(4096)
    sock.sendall(b"\x16\x03\x03\x40\x00")
    while True:
        sock.sendall(b"\x02")
        threading.Event().wait(0.3)


@pytest.mark.parametrize("handle", [cut, half, garbage, silent, drips])
def test_handshake_that_does_not_come_to_an_end(bench, images, authority, handle):
    device = bench.device(images("1.0.0", app=app(HASTY)), boot={"CA": authority.der})
    with Raw(handle) as server:
        url = f"https://localhost:{server.port}/a.bin"
        assert refused(bench, device, url) == "failed 0 490"
        assert server.connections == 2  # it was tried again, once
    # All the while it heard its broker.
    assert bench.heard("upgrade_reply") == ["200"]


def test_https_without_a_ca_is_refused(make_bench, images, authority):
    bench = make_bench()
    device = bench.device(images("1.0.0", app=app(HASTY)))
    with Relay("127.0.0.1", bench.platform.http_port, tls=authority.issue()) as relay:
        assert refused(bench, device, https(bench, relay)) == "failed 0 435"
        assert len(relay.connections) == 0


def test_unverified_has_to_be_asked_for_and_is_told_at_every_start(
    bench, images, authority, tmp_path
):
    device = bench.device(images("1.0.0"), boot={"ALLOW_UNVERIFIED_TLS": True})
    device.wait("boot.py: ALLOW_UNVERIFIED_TLS: no server is checked!")
    context = issue(authority, tmp_path / "ca", itself=True, host="whoever")
    with Relay("127.0.0.1", bench.platform.http_port, tls=context) as relay:
        url = https(bench, relay)
        bench.say(bench.command("id-1", images("1.1.0"), "1.1.0", url=url))
        bench.hear("version", "1.1.0")
    told = [line for line in device.console if "no server is checked" in line]
    assert len(told) == len(device.boots) == 2


def test_redirects_over_tls(bench, images, authority, files):
    device = bench.device(
        images("1.0.0", app=app(HASTY)), boot={"CA": authority.der, "URL_HOSTS": ("localhost",)}
    )
    number = files.url.rsplit(":", 1)[1]
    for target, code in ((files.url, 434), (f"https://127.0.0.1:{number}", 414)):

        def moved(sock, request, target=target):
            sock.sendall(f"HTTP/1.0 302 X\r\nLocation: {target}/b.bin\r\n\r\n".encode())

        files.paths = {"/a.bin": moved}
        with Relay("127.0.0.1", int(number), tls=authority.issue()) as relay:
            url = f"https://localhost:{relay.port}/a.bin"
            assert refused(bench, device, url) == f"failed 0 {code}"
    assert files.asked("/b.bin") == []
    assert refused(bench, device, "http://127.0.0.1/x") == "failed 0 414"


NTP = """
import time
import utime

def settime():
    try:
        open("ntp.ok").close()
    except OSError:
        print("NTP: the year is 2012")
        time._set(12 * 365 * 86400)
        return
    time._set(int(utime.time()) - 946684800)
"""


def test_no_tls_before_the_clock_is_set(make_bench, images, authority):
    """An NTP server that tells a time before this firmware was built is not believed."""
    bench = make_bench(tls=authority.issue())
    device = bench.device(
        images("1.0.0", app=app("", ("> 15000", "> 1000"))),
        seen=False,
        boot={
            "MQTT_SERVER": "localhost",
            "MQTT_TLS": True,
            "CA": authority.der,
        },
    )
    device.stop()
    device.put("ntptime.py", NTP)
    device.start()
    device.wait("NTP: the year is 2012")
    device.wait("main.py: no connection to localhost [0-9]+ no time yet")
    flash = flash_of(device)
    # A connection may be opened, but nothing is said on it.
    until(lambda: len([line for line in device.console if "NTP: the year" in line]) >= 2)
    assert sum(connection.to_server for connection in bench.wire.connections) == 0
    assert flash_of(device) == flash
    device.stop()
    device.put("ntp.ok", "")
    device.start()
    bench.hear("version", "1.0.0")
