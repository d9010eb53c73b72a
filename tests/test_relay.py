"""The relay that stands for the link of a simulated device."""

import socket
import socketserver
import threading
import time
from contextlib import contextmanager

import pytest

from tools.device.net import Relay


class _Sender(socketserver.BaseRequestHandler):
    """Sends 100,000 bytes when it got a line."""

    def handle(self):
        if self.request.recv(100):
            self.request.sendall(bytes(100000))


@contextmanager
def relay(**options):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Sender) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Relay(*server.server_address, **options) as made:
            yield made
        server.shutdown()


def receive(relay: Relay) -> int:
    """Bytes that came before the connection ended."""
    count = 0
    with socket.create_connection((relay.host, relay.port), timeout=10) as sock:
        sock.sendall(b"go\n")
        try:
            while data := sock.recv(65536):
                count += len(data)
        except ConnectionResetError:
            return count
    return count


def test_relay_passes_on_and_counts():
    with relay() as link:
        assert receive(link) == 100000
        connection = link.connections[0]
        assert (connection.to_device, connection.to_server) == (100000, 3)


def test_relay_cuts_each_connection_where_it_is_told():
    with relay(buffer=8192) as link:
        link.cut_after(12345, 7)
        assert [receive(link) for _ in range(3)] == [12345, 7, 100000]


def test_relay_that_is_down_refuses_until_it_is_up():
    with relay() as link:
        link.down()
        with pytest.raises(OSError, match="reset|refused|pipe"):
            assert receive(link) == 0
            raise ConnectionResetError("reset")  # it came to an end without a byte
        link.up()
        assert receive(link) == 100000


def test_relay_throttles_and_cuts_a_standing_connection():
    with relay(rate=20000, buffer=4096) as link:
        threading.Timer(0.5, link.cut).start()
        assert 0 < receive(link) < 100000


def test_relay_stalls_and_goes_on():
    with relay() as link:
        link.stalled = True
        threading.Timer(0.3, link.up).start()
        begin = time.monotonic()
        assert receive(link) == 100000
        assert time.monotonic() - begin >= 0.2
