"""
The layout of docs/fleet.md: nginx stands before the platform, has the files, and asks whether a
URL holds.
"""

import os
import re
from urllib.parse import urlsplit

import httpx
import pytest

from tests import console
from tools import servers
from tools.platform.access import FAILURES_MAX
from tools.platform.local import LocalPlatform
from tools.toolchain import ROOT

CONTENT = b"\xe9" + b"firmware" * 500


@pytest.fixture
def layout(tmp_path):
    """(platform, URL of an nginx with the configuration of the page)."""
    page = (ROOT / "docs/fleet.md").read_text()
    block = "".join(re.findall(r"```nginx\n(.*?)```", page, re.DOTALL))
    folder, port = tmp_path / "nginx", servers.free_port()
    folder.mkdir()
    base = f"http://127.0.0.1:{port}"
    with LocalPlatform(tmp_path / "platform", public_url=base, proxy=True) as platform:
        for old, new, count in (
            ("/srv/ota", str(platform.platform.folder), 1),
            ("127.0.0.1:8070", f"127.0.0.1:{platform.http_port}", 2),
        ):
            assert block.count(old) == count
            block = block.replace(old, new)
        places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{name}_temp_path {folder}/{name};" for name in places)
        (folder / "nginx.conf").write_text(
            f"daemon off; {'user root;' if os.geteuid() == 0 else ''} pid {folder}/pid;"
            f"error_log {folder}/error.log; events {{}}"
            f"http {{ access_log off; {temporary}"
            f"server {{ listen 127.0.0.1:{port}; {block} }} }}"
        )
        command = [servers.program("nginx"), "-e", folder / "error.log"]
        with servers.running([*command, "-c", folder / "nginx.conf"], port, folder):
            platform.add_product("pk")
            source = tmp_path / "a.bin"
            source.write_bytes(CONTENT)
            platform.upload("pk", source, "1.1.0")
            yield platform, base


def test_a_device_gets_its_file_from_nginx(layout):
    platform, base = layout
    url = platform.url_of(1, "lamp")
    assert url.startswith(base)
    whole = httpx.get(url)
    assert (whole.status_code, whole.content) == (200, CONTENT)
    rest = httpx.get(url, headers={"Range": "bytes=4000-"})
    assert (rest.status_code, rest.content) == (206, CONTENT[4000:])
    assert platform.access_log == []  # the platform was asked, and sent nothing


def test_nginx_refuses_what_the_platform_refuses(layout):
    platform, base = layout
    url = platform.url_of(1, "lamp")
    wrong = [
        url.replace("device=lamp", "device=pump"),
        url.partition("?")[0],
        platform.url_of(1, "lamp", seconds=-1),
        base + "/firmware/../platform.db?" + urlsplit(url).query,
        base + "/firmware/1/%2e%2e/%2e%2e/platform.db?" + urlsplit(url).query,
    ]
    for each in wrong:
        answer = httpx.get(each)
        assert answer.status_code in (400, 403, 404), each
        assert CONTENT not in answer.content
    assert httpx.get(base + "/check").status_code == 404


def test_the_console_behind_nginx(layout):
    platform, base = layout
    platform.platform.access.add_operator(console.NAME, console.PASSWORD)
    browser = console.Browser(platform)
    browser.http.base_url = base
    for number in range(FAILURES_MAX):  # a guesser cannot make himself somebody else
        browser.http.headers["X-Forwarded-For"] = f"192.0.2.{number}"
        assert browser.log_in(password="wrong password").status_code == 403
    assert browser.log_in().status_code == 429
    other = console.Browser(platform)  # beside nginx, so that it is who it says to be
    other.http.headers["X-Forwarded-For"] = "192.0.2.1"
    assert other.log_in().status_code == 303
    image = ("b.bin", b"x" * 2_000_000)
    headers = {"Authorization": f"Bearer {platform.platform.token}"}
    form = {"product": "pk", "version": "2"}
    made = httpx.post(base + "/api/firmware", files={"file": image}, data=form, headers=headers)
    assert made.status_code == 200
