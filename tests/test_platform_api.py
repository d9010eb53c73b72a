"""
The API by its own description: whatever schemathesis makes of it, no answer is a 5xx, and each is
as described. And what a broker asks.
"""

import json
import os
import re
import subprocess
import sys
from urllib.parse import quote

import httpx
import pytest

from tests.console import furnish
from tools.platform.client import API_FILE, TOKEN, Client
from tools.platform.local import LocalPlatform
from tools.platform.model import PlatformError

_EXAMPLES = 8  # for each call
_TIMEOUT_S = 240


@pytest.fixture
def platform(tmp_path):
    with LocalPlatform(tmp_path / "platform") as platform:
        furnish(platform, tmp_path)
        platform.upgrade(1)
        platform.add_device("pk", "d2")
        yield platform


def test_firmware_is_removed_by_whatever_name(platform, tmp_path):
    base, token = found(platform)
    headers = {"Authorization": f"Bearer {token}"}
    source = tmp_path / "b.bin"
    source.write_bytes(b"\xe9")
    for name in ("a/b", "50 %", "\u00e9 ?#"):
        platform.upload("pk", source, "2", name)
        url = base + "firmware/" + quote(name, safe="")
        assert httpx.delete(url, headers=headers).json() == {"done": True}
        assert httpx.delete(url, headers=headers).status_code == 404
    refused = httpx.delete(base + "firmware/1", headers=headers)
    assert (refused.status_code, "abort it first" in refused.json()["error"]) == (400, True)
    assert httpx.delete(base + "firmware/1").status_code == 401


def found(platform):
    """URL and token."""
    about = json.loads((platform.platform.folder / API_FILE).read_text())
    return about["url"], about["token"]


# So that it meets what there is, too: by itself it seldom guesses a name.
_NAMES = """
[parameters]
"path.batch" = 1
"path.identifier" = "d1"
"path.key" = "pk"
"path.firmware" = "pk-1.1.0"

[[operations]]
include-name = "DELETE /api/devices/{identifier}"
parameters = { "path.identifier" = "d2" }
"""


@pytest.mark.parametrize("names", ["", _NAMES])
def test_schemathesis_finds_no_error(platform, tmp_path, names):
    url, token = found(platform)
    config = tmp_path / "schemathesis.toml"
    config.write_text(names)
    checks = "not_a_server_error,status_code_conformance,content_type_conformance"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", config, "run"]
    command += [url + "openapi.json", "--checks", checks + ",response_schema_conformance"]
    command += ["--seed", "7", "--workers", "2", "--no-color"]
    command += ["--max-examples", str(_EXAMPLES), "--header", f"Authorization: Bearer {token}"]
    command += ["--phases", "fuzzing" if names else "coverage"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    tested = re.search(r"Tested: (\d+)", done.stdout)
    cases = re.search(r"(\d[\d,]*) generated", done.stdout)
    assert tested and int(tested[1]) >= 24, done.stdout[-3000:]
    assert cases and int(cases[1].replace(",", "")) > 100, done.stdout[-3000:]
    assert httpx.get(url + "products", headers={"Authorization": f"Bearer {token}"}).is_success


def test_the_description_has_a_page_and_needs_nothing_from_elsewhere(platform):
    base = found(platform)[0]
    page = httpx.get(base + "docs")
    assert page.status_code == 200
    assert "https://" not in page.text.replace("https://github.com", "")
    for line in page.text.split('"'):
        if line.startswith("/api/static/"):
            assert httpx.get(base + line.removeprefix("/api/")).status_code == 200
    described = httpx.get(base + "openapi.json").json()
    assert {"/api/batches", "/api/firmware", "/api/devices"} <= set(described["paths"])


def test_tokens(platform, monkeypatch):
    base, _ = found(platform)
    url = base.removesuffix("api/")
    monkeypatch.setenv(TOKEN, "nonsense")
    with pytest.raises(PlatformError, match="the token is wrong"):
        Client(platform.platform.folder, url).get("products")
    monkeypatch.setenv(TOKEN, platform.platform.access.add_token("ci"))
    assert [row["key"] for row in Client(platform.platform.folder, url).get("products")] == ["pk"]
    with pytest.raises(PlatformError, match="exists already"):
        platform.platform.access.add_token("ci")
    platform.platform.access.remove_token("ci")
    with pytest.raises(PlatformError, match="the token is wrong"):
        Client(platform.platform.folder, url).get("products")
    monkeypatch.delenv(TOKEN)
    with pytest.raises(PlatformError, match=TOKEN):
        Client(platform.platform.folder, url)
    assert os.environ.get(TOKEN) is None


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({"clientid": "d1", "username": "pk&d1", "password": None}, "allow"),
        ({"clientid": "d1", "username": "pk&d1", "password": "wrong"}, "deny"),
        ({"clientid": "d2", "username": "pk&d1", "password": None}, "deny"),
        ({"clientid": "d1", "username": "pk", "password": None}, "deny"),
        ({}, "deny"),
        ({"clientid": None, "username": None, "password": None}, "deny"),
        ({"clientid": "d1", "username": "pk&d1\0", "password": ""}, "deny"),
        ({"clientid": "\ud800", "username": "\ud800&\ud800", "password": "\ud800"}, "deny"),
        ({"clientid": "x" * 70000, "username": "pk&" + "x" * 70000, "password": "x"}, "deny"),
    ],
)
def test_a_broker_asks_who_may_come_in(platform, asked, answer):
    base, token = found(platform)
    if "password" in asked and asked["password"] is None:
        asked = asked | {"password": platform.platform.registry.devices(secrets=True)[0]["secret"]}
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    got = httpx.post(
        base + "broker/login", content=json.dumps(asked | {"extra": 1}), headers=headers
    )
    assert got.json() == {"result": answer}
    assert httpx.post(base + "broker/login", json={}).status_code == 401


@pytest.mark.parametrize(
    ("topic", "answer"),
    [
        ("/sys/pk/d1/ota/firmware/version", "allow"),
        ("/sys/pk/d1/ota/firmware/#", "allow"),
        ("/sys/pk/d10/ota/firmware/version", "deny"),
        ("/sys/pk/+/ota/firmware/upgrade", "deny"),
        ("/sys/#", "deny"),
        ("#", "deny"),
        ("$SYS/#", "deny"),
        ("/sys/pk/d1", "deny"),
        ("", "deny"),
        ("/sys/pk/d1/ota/\ud800", "deny"),
        ("/sys/pk/d1/ota/\0", "deny"),
    ],
)
def test_a_broker_asks_for_a_topic(platform, topic, answer):
    base, token = found(platform)
    asked = {"clientid": "d1", "username": "pk&d1", "topic": topic}
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    assert httpx.post(
        base + "broker/topic", content=json.dumps(asked), headers=headers
    ).json() == {"result": answer}


def test_a_name_that_is_no_text_is_refused(platform):
    base, token = found(platform)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    for body in ('{"\\ud800": 1}', '{"key": "\\ud800"}', '{"key": "a\\u0000"}'):
        assert httpx.post(base + "products", content=body, headers=headers).status_code == 422
