"""
The platform with its event loop in a thread of its own, for tests, the demo and benchmarks: `with
LocalPlatform(folder) as platform:`.
"""

import asyncio
import threading

from tools.platform.engine import PAGE, Row
from tools.platform.server import Platform

_CALL_S = 60.0  # no start or stop takes longer
_URL_S = 3600.0


class LocalPlatform:
    """
    The calls of the platform's `Engine` and `Registry`, from any thread. folder, options: those of
    Platform.

    Its `platform` may be looked at; `platform.files.throttle` and `platform.public_url` may be set
    at any time.
    """

    def __init__(self, folder, **options):
        self.platform = Platform(folder, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="platform", daemon=True
        )

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """Once. Raises PlatformError."""
        self._thread.start()
        try:
            self._wait(self.platform.start())
        except BaseException:
            self._end()
            raise

    def stop(self):
        """Once; start again on the same folder with a new LocalPlatform."""
        try:
            self._wait(self.platform.stop())
        finally:
            self._end()

    @property
    def mqtt_port(self) -> int:
        return self.platform.mqtt_port

    @property
    def http_port(self) -> int:
        return self.platform.http_port

    @property
    def access_log(self) -> list:
        """The requests for files so far, oldest first, see files.Access."""
        return list(self.platform.files.log)

    def add_product(self, key: str = "", name: str = "", signed: bool = False) -> str:
        """Returns its key."""
        return self.platform.registry.add_product(key, name, signed)

    def add_device(self, product: str, identifier: str, name: str = "") -> str:
        """Returns its secret."""
        return self.platform.registry.add_device(product, identifier, name)

    def upload(self, product: str, path, version: str, *more, **named) -> int:
        """more, named: as Registry.upload. Returns the firmware's id."""
        return self.platform.registry.upload(product, path, version, *more, **named)

    def url_of(self, firmware: int | str, device: str = "any", seconds: float = _URL_S) -> str:
        """Where that device may fetch it."""
        found = self.platform.registry.find_firmware(firmware)
        return self.platform.url_of(found, device, seconds)

    def upgrade(self, firmware: int | str, devices: list[str] | None = None, **settings) -> int:
        """settings: those of Engine.upgrade. Returns the batch's number."""
        return self.platform.engine.upgrade(firmware, devices, **settings)["batch"]

    def status(self, batch: int) -> list[Row]:
        """All devices of the batch."""
        rows: list[Row] = []
        while True:
            page = self.platform.engine.status(batch, rows[-1].device if rows else "")
            rows += page
            if len(page) < PAGE:
                return rows

    def state(self, batch: int) -> str:
        """In Progress, Completed or Aborted."""
        return self.platform.engine.batch(batch)["state"]

    def wait(self, batch: int, timeout: float = 60) -> list[Row]:
        """Until all its devices are at rest. Returns status(batch). Raises TimeoutError."""
        self.platform.engine.wait(batch, timeout)
        return self.status(batch)

    def wait_seen(self, devices: list[str], timeout: float = 60):
        """Until all these devices have reported a version. Raises TimeoutError."""
        self.platform.engine.wait_seen(devices, timeout)

    def devices(self, product: str = "") -> list[dict]:
        """What is known of the devices: identifier, version, seen, ..."""
        return self.platform.registry.devices(product)

    def events(self, device: str) -> list[dict]:
        """The log of a device, oldest first: time, batch, kind, text."""
        return self.platform.engine.events(device)

    def abort(self, batch: int):
        self.platform.engine.abort(batch)

    def retry(self, batch: int, device: str):
        self.platform.engine.retry(batch, device)

    def publish(self, topic: str, payload: str | bytes, retain: bool = False):
        """Any message to any topic, past the logic: for tests of devices."""
        self.platform.publish(topic, payload, retain)

    def _wait(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_S)

    def _end(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_S)
        self._loop.close()
