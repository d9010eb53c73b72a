"""The layout of docs/fleet.md: nginx has the files, and asks the platform whether a URL holds."""

import os
import re
from urllib.parse import urlsplit

import httpx
import pytest

from tools import servers
from tools.platform.local import LocalPlatform
from tools.toolchain import ROOT

CONTENT = b"\xe9" + b"firmware" * 500


@pytest.fixture
def layout(tmp_path):
    """(platform, URL of an nginx with the configuration of the page)."""
    (block,) = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs/fleet.md").read_text(), re.DOTALL)
    folder, port = tmp_path / "nginx", servers.free_port()
    folder.mkdir()
    base = f"http://127.0.0.1:{port}"
    with LocalPlatform(tmp_path / "platform", public_url=base) as platform:
        for old, new in (
            ("/srv/ota", str(platform.platform.folder)),
            ("127.0.0.1:8070", f"127.0.0.1:{platform.http_port}"),
        ):
            assert block.count(old) == 1
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
