"""Types of the device package, for editors: pyright and Pylance look here by themselves."""

from collections.abc import Callable
from typing import Any

from .trust import Trust

class OTAError(Exception):
    code: int
    detail: int
    def __init__(self, code: int, detail: int = 0) -> None: ...

class Link:
    back_off_s: int
    up: int
    error: Exception | None
    unacked: set[int]
    server: str
    port: int
    def __init__(
        self,
        client_id: str,
        server: str,
        port: int = 0,
        user: str | None = None,
        password: str | None = None,
        keepalive: int = 0,
        ssl: Trust | bool | None = None,
    ) -> None: ...
    def set_callback(self, f: Callable[[bytes, bytes], Any]) -> None: ...
    def subscribe(self, topic: str | bytes, qos: int = 0) -> None: ...
    def publish(
        self, topic: str | bytes, msg: str | bytes, retain: bool = False, qos: int = 0
    ) -> int | None: ...
    def check_msg(self) -> None: ...
    def close(self) -> None: ...

class OTA:
    version: str
    tested: bool | None
    def __init__(
        self,
        product_key: str,
        device_name: str,
        mqtt_client: Any,
        identifier: str | None = None,
        version: str = "0",
        *,
        on_silent: Callable[[Any], bool] | None = None,
        self_test: Callable[[], bool | None] | None = None,
        on_message: Callable[[bytes, bytes], Any] | None = None,
        on_info: Callable[[str, int | None, dict | None], Any] | None = None,
        progress_percent: int = 5,
        progress_s: int = 5,
        tries: int = 5,
        stall_s: int = 30,
        total_s: int = 3600,
        trial_s: int = 300,
        late_s: int = 600,
        wdt: Any = None,
        trust: Trust | None = None,
    ) -> None: ...
    def poll(self) -> None: ...
    def connected(self) -> None: ...
    def cancel(self) -> None: ...
    def destroy(self) -> None: ...
    def __enter__(self) -> OTA: ...
    def __exit__(self, *exception: object) -> None: ...
    def is_fetching(self) -> bool: ...
    def fetch_finish(self) -> bool: ...
    def fetch_yield(self, buf: bytearray | memoryview, timeout_s: float) -> int: ...
    def report_progress(self, status: str, progress: int) -> None: ...
    def report_firmware_version(self, version: str | None = None) -> None: ...
    def get_firmware_info(
        self, version: str, product_key: str | None = None, identifier: str | None = None
    ) -> str: ...

init = OTA
