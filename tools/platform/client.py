"""
The command line's way to the platform that runs on a folder: its API, found by the file it left
there.
"""

import json
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

from tools.platform.model import PlatformError

API_FILE = "api.json"  # in the folder while the platform runs: where its API is, and its token

_TIMEOUT_S = 30.0
_UPLOAD_S = 300.0


class Client:
    """folder: of the platform. Raises PlatformError when none runs on it."""

    def __init__(self, folder: Path):
        self._none = f"no platform runs on {folder}: start one by `platform serve`"
        try:
            found = json.loads((folder / API_FILE).read_text())
            self._url, self._token = found["url"], found["token"]
        except (OSError, ValueError, KeyError) as error:
            raise PlatformError(self._none) from error
        # What goes to this machine goes through no proxy.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, name: str, /, **arguments):
        """One call of the API, see api.CALLS. Returns its result. Raises PlatformError."""
        return self._post(name, json.dumps(arguments).encode(), _TIMEOUT_S)

    def upload(self, path: Path, product: str, version: str, name: str, **more: str) -> int:
        """more: board, manifest, signature. Returns its id. Raises PlatformError."""
        query = {"product": product, "version": version, "name": name, "file": path.name, **more}
        try:
            with path.open("rb") as file:
                length = {"Content-Length": str(path.stat().st_size)}
                return self._post("upload?" + urlencode(query), file, _UPLOAD_S, length)
        except OSError as error:
            raise PlatformError(f"{path}: {error.strerror or error}") from error

    def _post(self, name, body, timeout, headers=None):
        headers = {
            "Authorization": "Bearer " + self._token,
            "Content-Type": "application/json",
            **(headers or {}),
        }
        request = urllib.request.Request(self._url + name, body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=timeout) as response:
                return json.load(response)["result"]
        except urllib.error.HTTPError as error:
            raise PlatformError(_sentence(error)) from error
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise PlatformError(f"{self._none} ({error})") from error


def _sentence(error):
    try:
        return json.load(error)["error"]
    except (ValueError, KeyError):
        return f"the platform answers {error.code} {error.reason}"
