"""tools/fetch.py against an index of our own: both forms of a page, and what may go wrong."""

import hashlib
import json
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tools import fetch
from tools.fetch import FetchError, Index

NAME, VERSION = "micropython-umqtt.simple", "1.3.4"
FILE = f"{NAME}-{VERSION}.tar.gz"
PAGE = "/simple/micropython-umqtt-simple/"
ARCHIVE = b"an archive"
DIGEST = hashlib.sha256(ARCHIVE).hexdigest()
HTML = f'<a href="other-1.0.tar.gz">o</a><a href="../../files/{FILE}#sha256=12">it</a>'
JSON = json.dumps({"files": [{"filename": FILE, "url": f"/files/{FILE}", "hashes": {}}]})


@pytest.fixture
def server():
    """An HTTP server. pages: path to (kind, content, how many 503 come first); asked: requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append((self.path, self.headers.get("Authorization")))
            kind, content, failures = self.server.pages.get(self.path, ("", b"", -1))
            if failures:
                self.server.pages[self.path] = kind, content, failures - 1
                self.send_error(404 if failures < 0 else 503)
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.asked = []
        http.pages = {f"/files/{FILE}": ("application/gzip", ARCHIVE, 0)}
        http.host = f"127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield http
        http.shutdown()
        thread.join(10)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def _archive(server, digest=DIGEST, host="", path="/simple"):
    url = f"http://{host or server.host}{path}"
    return Index({"index-url": url}).archive(NAME, VERSION, digest)


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        ("text/html", HTML),
        ("application/vnd.pypi.simple.v1+html", HTML),
        ("application/vnd.pypi.simple.v1+json", JSON),
    ],
)
@pytest.mark.parametrize("path", ["/simple", "/simple/"])
def test_both_forms_of_a_page(server, kind, page, path):
    server.pages[PAGE] = kind, page.encode(), 0
    assert _archive(server, path=path) == ARCHIVE


def test_a_server_that_is_busy_is_asked_again(server):
    server.pages[PAGE] = "text/html", HTML.encode(), 2
    assert _archive(server) == ARCHIVE
    assert [path for path, _ in server.asked] == [PAGE] * 3 + [f"/files/{FILE}"]


def test_a_server_that_stays_busy_is_given_up(server):
    server.pages[PAGE] = "text/html", HTML.encode(), 9
    with pytest.raises(FetchError, match="503"):
        _archive(server)
    assert len(server.asked) == 3


def test_a_missing_page_is_asked_for_once(server):
    with pytest.raises(FetchError, match="404"):
        _archive(server)
    assert len(server.asked) == 1


def test_another_digest_is_refused(server):
    server.pages[PAGE] = "text/html", HTML.encode(), 0
    with pytest.raises(FetchError, match="pinned is 0000"):
        _archive(server, digest="0" * 64)


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        ("text/html", b"<a href=other-1.0.tar.gz>", "has no micropython-umqtt.simple-1.3.4"),
        ("application/vnd.pypi.simple.v1+json", b"{}", "no page of an index"),
        ("application/vnd.pypi.simple.v1+json", b"<html>", "no page of an index"),
    ],
)
def test_a_page_without_the_file(server, kind, content, words):
    server.pages[PAGE] = kind, content, 0
    with pytest.raises(FetchError, match=words):
        _archive(server)


def test_a_password_is_sent_but_never_shown(server):
    with pytest.raises(FetchError) as caught:
        _archive(server, host=f"name:p%40ss@{server.host}")
    assert "ss@" not in str(caught.value)
    assert server.asked == [(PAGE, "Basic " + b64encode(b"name:p@ss").decode())]


def test_a_second_index_is_asked_after_the_first(server):
    server.pages["/more/micropython-umqtt-simple/"] = "text/html", HTML.encode(), 0
    index = Index(
        {
            "index-url": f"http://{server.host}/simple",
            "extra-index-url": f"file:///nowhere http://{server.host}/more",
        }
    )
    assert index.archive(NAME, VERSION, DIGEST) == ARCHIVE


def test_the_environment_wins_over_the_file(monkeypatch, tmp_path):
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = http://one/\ntimeout = 7\n[download]\nindex-url = http://two/\n"
        "[install]\nindex-url = http://three/\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    assert fetch.pip_options()["index-url"] == "http://two/"
    monkeypatch.setenv("PIP_INDEX_URL", "http://four/")
    assert fetch.pip_options()["index-url"] == "http://four/"
    assert fetch.pip_options()["timeout"] == "7"


def test_what_is_there_is_not_fetched_again(monkeypatch):
    def refuse(*_):
        raise AssertionError("nothing is missing")

    monkeypatch.setattr(fetch, "Index", refuse)
    assert fetch.main() == 0


def test_what_cannot_be_fetched_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(fetch, "LIB", fetch.BUILD / "none")
    monkeypatch.setattr(fetch, "pip_options", lambda: {"index-url": "http://127.0.0.1:1/"})
    assert fetch.main() == 1
    words = capsys.readouterr().err
    assert "http://127.0.0.1:1/micropython-umqtt-simple/" in words
    assert "build/none" in words
