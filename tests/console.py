"""An operator with a browser that runs no scripts: what a test does with the console's pages."""

import re
from pathlib import Path

import httpx

from tools.platform.local import LocalPlatform
from tools.platform.model import Device

NAME, PASSWORD = "ann", "correct horse battery"


def furnish(platform: LocalPlatform, folder: Path) -> None:
    """Product pk with firmware 1.1.0, and a device d1 that has told 1.0.0 and is away."""
    platform.add_product("pk")
    platform.add_device("pk", "d1")
    source = folder / "a.bin"
    source.write_bytes(b"\xe9 firmware")
    platform.upload("pk", source, "1.1.0")
    told(platform)


def told(platform: LocalPlatform) -> None:
    """The one device has told version 1.0.0."""
    with platform.platform._store.begin() as tx:
        (device,) = tx.find(Device)
        device.version, device.seen = "1.0.0", 1.0
        tx.update([device])


class Browser:
    """Attributes: http, an httpx.Client that keeps cookies and follows nothing."""

    def __init__(self, platform: LocalPlatform):
        base = f"http://127.0.0.1:{platform.http_port}"
        self.http = httpx.Client(base_url=base, headers={"Accept": "text/html"}, timeout=20)
        self._token = ""

    def form_token(self, path: str) -> str:
        """What the forms of that page carry."""
        return re.search(r'name="csrf" value="([^"]+)"', self.http.get(path).text)[1]

    def log_in(self, name: str = NAME, password: str = PASSWORD) -> httpx.Response:
        form = {"csrf": self.form_token("/login"), "name": name, "password": password}
        answer = self.http.post("/login", data=form)
        if answer.status_code == 303:
            self._token = self.form_token("/")
        return answer

    def send(self, path: str, files=None, **fields) -> httpx.Response:
        """A form of a page of the session; all of them carry the same token."""
        return self.http.post(path, data={"csrf": self._token, **fields}, files=files)

    def cookie(self) -> str:
        return self.http.cookies["ota_session"]
