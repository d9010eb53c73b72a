"""
The command line's way to the platform: its HTTP API. Of one that runs on a folder here, by the
file that it left there; of one elsewhere, by its URL and a token.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx

from tools.platform.model import PlatformError

API_FILE = "api.json"  # in the folder while the platform runs: where its API is, and its token
TOKEN = "OTA_PLATFORM_TOKEN"  # the environment variable

_TIMEOUT_S = 30.0
_UPLOAD_S = 300.0
_PAGE = 1000


class Client:
    """
    folder: of the platform; url: of one elsewhere, None = the one of the folder. Raises
    PlatformError when none runs on the folder, or there is no token.
    """

    def __init__(self, folder: Path, url: str | None = None):
        if url:
            self._none = f"no platform answers at {url}"
            token = os.environ.get(TOKEN, "")
            if not token:
                raise PlatformError(f"${TOKEN} is not set: `platform token add NAME` makes one")
            base = url.rstrip("/") + "/api/"
        else:
            self._none = f"no platform runs on {folder}: start one by `platform serve`"
            try:
                found = json.loads((folder / API_FILE).read_text())
                base, token = found["url"], found["token"]
            except (OSError, ValueError, KeyError) as error:
                raise PlatformError(self._none) from error
        try:
            self._http = httpx.Client(
                base_url=base,
                headers={"Authorization": "Bearer " + token},
                timeout=_TIMEOUT_S,
                trust_env=bool(url),  # what goes to this machine goes through no proxy
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise PlatformError(f"URL {url!r}: {error}") from error

    def get(self, *path: object, **query):
        """path: its parts behind /api/. Returns what is answered. Raises PlatformError."""
        return self._ask("GET", path, params=query)

    def post(self, *path: object, **values):
        """values: of the object that is sent. Returns what is answered. Raises PlatformError."""
        return self._ask("POST", path, json=values)

    def put(self, *path: object, **values):
        """As post."""
        return self._ask("PUT", path, json=values)

    def delete(self, *path: object):
        """Raises PlatformError."""
        return self._ask("DELETE", path)

    def pages(self, *path: object, by: str, **query) -> Iterator[dict]:
        """All rows of a list that comes in pages. by: the key that `after` wants."""
        after = ""
        while True:
            rows = self.get(*path, **query, after=after, limit=_PAGE)
            yield from rows
            if len(rows) < _PAGE:
                return
            after = rows[-1][by]

    def upload(self, path: Path, product: str, version: str, name: str, **more: str) -> dict:
        """more: board, manifest, signature. Returns id and name. Raises PlatformError."""
        fields = {"product": product, "version": version, "name": name, **more}
        try:
            with path.open("rb") as file:
                files = {"file": (path.name, file, "application/octet-stream")}
                return self._ask("POST", ["firmware"], data=fields, files=files, timeout=_UPLOAD_S)
        except OSError as error:
            raise PlatformError(f"{path}: {error.strerror or error}") from error

    def _ask(self, method, path, **more):
        try:
            url = "/".join(quote(str(part), safe="") for part in path)
            response = self._http.request(method, url, **more)
        except httpx.HTTPError as error:
            raise PlatformError(f"{self._none} ({error})") from error
        if response.is_success:
            return response.json()
        try:
            raise PlatformError(response.json()["error"])
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{response.status_code} {response.reason_phrase}"
            raise PlatformError(f"the platform answers {reason}") from error
