"""The file server over real HTTP: what a resuming device needs, and the access log."""

import contextlib
import hashlib
import http.client
import os
import socket
import time
from urllib.parse import parse_qsl, urlencode

import pytest

from tools.platform.local import LocalPlatform

SIZE = 200_000
CONTENT = os.urandom(SIZE)


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    folder = tmp_path_factory.mktemp("platform")
    source = folder / "a.bin"
    source.write_bytes(CONTENT)
    with LocalPlatform(folder, throttle=10_000_000) as platform:
        platform.add_product("pk")
        platform.upload("pk", source, "1.0.0")
        yield platform


def signed(platform, firmware=1, **more):
    """The path of its URL, and the query."""
    return platform.url_of(firmware, **more).partition(f":{platform.http_port}")[2]


def ask(platform, path="", method="GET", **headers):
    """path: "" = of the first firmware. Returns (status, headers, body)."""
    path = path or signed(platform)
    connection = http.client.HTTPConnection("127.0.0.1", platform.http_port, timeout=10)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=named)
    response = connection.getresponse()
    answer = response.status, response.headers, response.read()
    connection.close()
    return answer


def last(platform):
    # The log is written by the server's thread, which may be behind the client by a moment.
    deadline = time.monotonic() + 10
    access = platform.access_log[-1]
    while not access.ended and time.monotonic() < deadline:
        time.sleep(0.01)
    return access


def test_whole_file(platform):
    status, headers, body = ask(platform)
    assert (status, body) == (200, CONTENT)
    assert headers["Content-Length"] == str(SIZE)
    assert headers["Accept-Ranges"] == "bytes"
    assert "Content-Encoding" not in headers
    access = last(platform)
    assert (access.path, access.range, access.status) == ("/firmware/1/a.bin", "", 200)
    assert (access.start, access.sent) == (0, SIZE)


@pytest.mark.parametrize(
    ("asked", "first", "last_byte"),
    [
        ("bytes=0-", 0, SIZE - 1),
        ("bytes=4096-", 4096, SIZE - 1),
        ("bytes=4096-4099", 4096, 4099),
        ("bytes=100-999999", 100, SIZE - 1),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE - 1),
        ("bytes=-10", SIZE - 10, SIZE - 1),
    ],
)
def test_range(platform, asked, first, last_byte):
    status, headers, body = ask(platform, Range=asked)
    assert status == 206
    assert body == CONTENT[first : last_byte + 1]
    assert headers["Content-Range"] == f"bytes {first}-{last_byte}/{SIZE}"
    assert headers["Content-Length"] == str(len(body))
    access = last(platform)
    assert (access.range, access.status, access.start) == (asked, 206, first)


def test_what_is_noted_of_a_request_has_a_bound(platform):
    status, _, _ = ask(platform, "/firmware/1/" + "x" * 5000, Range="bytes=" + "0-1," * 2000)
    assert status == 403
    noted = last(platform)
    assert noted.path.startswith("/firmware/1/xxx")
    assert (len(noted.path), len(noted.range)) == (200, 200)


def test_range_behind_the_end(platform):
    status, headers, _ = ask(platform, Range=f"bytes={SIZE}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{SIZE}")
    access = last(platform)
    assert (access.status, access.length, access.start) == (416, 0, 0)


@pytest.mark.parametrize("asked", ["bytes=5-4", "blocks=1-2"])
def test_range_that_is_none(platform, asked):
    assert ask(platform, Range=asked)[0] == 400
    assert last(platform).status == 400


def test_head_has_no_body_and_ignores_range(platform):
    for headers in ({}, {"Range": "bytes=5-"}):
        status, answer, body = ask(platform, method="HEAD", **headers)
        assert (status, answer["Content-Length"], body) == (200, str(SIZE), b"")


def test_etag_that_fits_resumes(platform):
    tag = ask(platform, method="HEAD")[1]["ETag"]
    assert tag.startswith('"')
    assert ask(platform, Range="bytes=10-", If_Range=tag)[0] == 206


@pytest.mark.parametrize("tag", ['"another"', 'W/"weak"', "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_etag_of_another_file_starts_over(platform, tag):
    status, _, body = ask(platform, Range="bytes=10-", If_Range=tag)
    assert (status, body) == (200, CONTENT)


@pytest.mark.parametrize(
    "path",
    [
        "/firmware/1/a.bin",
        "/firmware/9/a.bin",
        "/firmware/1/%2e%2e",
        "/firmware/%2e%2e/platform.db",
        "/firmware/x/a.bin",
    ],
)
def test_no_url_of_ours(platform, path):
    assert ask(platform, path)[0] == 403


@pytest.mark.parametrize(
    "path",
    ["/platform.db", "/firmware/1/../../platform.db", "/firmware/1/%2e%2e%2f%2e%2e%2fplatform.db"],
)
def test_what_there_is_not(platform, path):
    assert ask(platform, path)[0] in (403, 404)


def test_brake_and_a_cut_in_the_middle(platform):
    platform.platform.files.throttle = 100_000
    try:
        connection = socket.create_connection(("127.0.0.1", platform.http_port), timeout=10)
        connection.sendall(f"GET {signed(platform)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        began = time.monotonic()
        got = b""
        while len(got) < 20_000:
            got += connection.recv(4096)
        assert time.monotonic() - began > 0.1  # a fifth of a second, or the brake is off
        connection.close()
        access = last(platform)
        assert access.ended
        assert 20_000 <= access.sent < access.length == SIZE
        assert access.status == 200
    finally:
        platform.platform.files.throttle = 10_000_000


def test_md5_of_the_command_is_that_of_the_file_as_it_is(platform, tmp_path):
    packed = tmp_path / "b.tar.gz"
    packed.write_bytes(b"\x1f\x8b not really packed")
    number = platform.upload("pk", packed, "2.0.0")
    status, headers, body = ask(platform, signed(platform, number), Accept_Encoding="gzip")
    assert (status, body) == (200, packed.read_bytes())
    assert "Content-Encoding" not in headers
    sign = platform.platform.registry.find_firmware(number).sign
    assert sign == hashlib.md5(body).hexdigest()


# Whose URL it is, and until when


def changed(path, **other):
    """The path with parts of its query replaced."""
    path, _, query = path.partition("?")
    return path + "?" + urlencode(dict(parse_qsl(query)) | other)


def test_a_url_ends(platform):
    assert ask(platform, signed(platform, seconds=60))[0] == 200
    path = signed(platform, seconds=-1)
    status, _, body = ask(platform, path)
    assert (status, b"has ended" in body) == (403, True)
    later = changed(path, ends=str(int(time.time()) + 1000))
    status, _, body = ask(platform, later)
    assert (status, b"not as the platform signed it" in body) == (403, True)


def test_a_url_is_for_one_device_and_one_file(platform, tmp_path):
    other = tmp_path / "other.bin"
    other.write_bytes(b"other")
    number = platform.upload("pk", other, "3.0.0")
    path = signed(platform, device="lamp")
    assert ask(platform, path)[0] == 200
    for wrong in (
        changed(path, device="pump"),
        changed(path, device=""),
        changed(path, signature=""),
        changed(path, signature="\xff"),
        changed(path, signature=signed(platform, number).rpartition("=")[2]),
        changed(path, ends="x"),
        changed(path, ends="-1"),
        changed(path, ends=""),
        path.partition("?")[0],
        path.replace("/firmware/1/a.bin", f"/firmware/{number}/other.bin"),
        path.replace("/firmware/1/a.bin", "/firmware/1/../1/a.bin"),
        path.replace("/firmware/1/", "/firmware/01/"),
        path.replace("?", "?device=pump&", 1) + "&device=pump",
    ):
        assert ask(platform, wrong)[0] in (403, 404), wrong
    assert last(platform).sent == 0


def test_keys_differ_between_platforms_and_last(platform, tmp_path):
    with LocalPlatform(tmp_path, http_port=0) as other:
        other.add_product("pk")
        source = tmp_path / "a.bin"
        source.write_bytes(CONTENT)
        other.upload("pk", source, "1.0.0")
        path = signed(other)
        assert ask(platform, path)[0] == 403
        assert ask(other, path)[0] == 200
    with LocalPlatform(tmp_path) as other:
        assert ask(other, path)[0] == 200


def test_a_server_that_has_the_files_asks_whether_a_url_holds(platform):
    check = "/firmware/check"
    path = signed(platform)
    assert ask(platform, check, X_Original_URI=path)[0] == 204
    for wrong in (changed(path, device="x"), signed(platform, seconds=-1), "", "/", "?", path[1:]):
        assert ask(platform, check, X_Original_URI=wrong)[0] == 403
    assert ask(platform, check)[0] == 403


def test_a_platform_that_stops_ends_its_downloads(tmp_path):
    platform = LocalPlatform(tmp_path / "platform", throttle=10_000)
    platform.start()
    try:
        platform.add_product("pk")
        source = tmp_path / "a.bin"
        source.write_bytes(CONTENT)
        platform.upload("pk", source, "1.0.0")
        with socket.create_connection(("127.0.0.1", platform.http_port), timeout=20) as sock:
            sock.sendall(f"GET {signed(platform)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert sock.recv(100)
            platform.stop()
            platform = None
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(65536):  # a device would wait for the rest
                    pass
    finally:
        if platform:
            platform.stop()
