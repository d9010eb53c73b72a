"""
The registry: products, devices and firmware come in here, checked. Knows limits and files, nothing
of upgrades.
"""

import asyncio
import hashlib
import secrets
import shutil
import time
from dataclasses import asdict
from pathlib import Path

from tools.platform import model, wire
from tools.platform.books import Books
from tools.platform.files import Files
from tools.platform.model import Device, Firmware, PlatformError, Product, same
from tools.platform.store import Store

_CHUNK = 256 * 1024  # bytes


class Registry:
    """store: opened, read once here into books; files: where firmware files go."""

    def __init__(self, store: Store, books: Books, files: Files):
        self._store, self._books, self._files = store, books, files
        self._products = {product.key: product for product in store.load(Product)}
        for kind in (Device, Firmware, model.Batch, model.Task):
            for record in store.load(kind):
                books.enter(record)
        self._uploading = asyncio.Lock()

    def add_product(self, key: str = "", name: str = "") -> str:
        """A new product. key: "" = one is made up. Returns its key. Raises PlatformError."""
        key = model.check_id(key or "p" + secrets.token_hex(5), "product key")
        if key in self._products:
            raise PlatformError(f"product {key} exists already")
        product = Product(key, name or key)
        self._store.save([product])
        self._products[key] = product
        return key

    def add_device(self, product: str, identifier: str, name: str = "") -> str:
        """A new device. Returns its secret. Raises PlatformError."""
        self._product(product)
        model.check_id(identifier, "identifier")
        if any(device.identifier == identifier for device in self._books.devices.values()):
            # It is the MQTT client id, by which a broker knows one client.
            raise PlatformError(f"device {identifier} exists already")
        device = Device(product, identifier, secrets.token_hex(16), name or identifier)
        self._store.save([device])
        self._books.enter(device)
        return device.secret

    async def upload(
        self, product: str, path, version: str, name: str = "", file: str = ""
    ) -> int:
        """
        A new firmware from a file, which is copied as it is.

        name: unique, 1 to 50 characters, "" = made of product and version; file: its name if not
        that of path.
        Returns its id. Raises PlatformError.
        """
        path = Path(path)
        async with self._uploading:
            self._product(product)
            name = name or f"{product}-{version}"[: model.NAME_MAX]
            self._check_firmware(product, version, name)
            file = model.check_file(file or path.name)
            number = max(self._books.firmware, default=0) + 1
            target = self._files.path(number, file)
            try:
                size, sign = await asyncio.to_thread(_take_in, path, target)
            except OSError as error:
                raise PlatformError(f"{path}: {error.strerror or error}") from error
            firmware = Firmware(number, product, name, version, file, size, sign, time.time())
            self._store.save([firmware])
            self._books.enter(firmware)
            return number

    def products(self) -> list[dict]:
        return [asdict(product) for product in self._products.values()]

    def devices(self, product: str = "", secrets: bool = False) -> list[dict]:
        """product: "" = all; secrets: with their secrets."""
        rows = [
            asdict(device)
            for device in self._books.devices.values()
            if product in ("", device.product)
        ]
        return (
            rows if secrets else [{k: v for k, v in row.items() if k != "secret"} for row in rows]
        )

    def firmware(self, product: str = "") -> list[dict]:
        """product: "" = all."""
        return [
            asdict(item) for item in self._books.firmware.values() if product in ("", item.product)
        ]

    def find_device(self, identifier: str) -> Device:
        """Raises PlatformError when there is none."""
        for device in self._books.devices.values():
            if device.identifier == identifier:
                return device
        raise PlatformError(f"no device {identifier}")

    def find_devices(self, product: str, identifiers: list[str] | None) -> list[Device]:
        """
        Those of one product, None = all of it. Raises PlatformError when one is unknown or of
        another product.
        """
        if identifiers is None:
            return [item for item in self._books.devices.values() if item.product == product]
        found = [self.find_device(identifier) for identifier in dict.fromkeys(identifiers)]
        for device in found:
            if device.product != product:
                raise PlatformError(f"device {device.identifier} is not of product {product}")
        return found

    def may_log_in(self, client_id: str, user: str, password: str) -> bool:
        """The login of a device, see docs/protocol.md."""
        product, _, identifier = user.partition("&")
        device = self._books.devices.get((product, identifier))
        return device is not None and client_id == identifier and same(password, device.secret)

    def find_firmware(self, firmware: int | str) -> Firmware:
        """By id or name. Raises PlatformError when there is none."""
        for item in self._books.firmware.values():
            if firmware in (item.id, item.name, str(item.id)):
                return item
        raise PlatformError(f"no firmware {firmware}")

    def _product(self, key):
        if key not in self._products:
            raise PlatformError(f"no product {key}")

    def _check_firmware(self, product, version, name):
        if not wire.is_version(version):
            raise PlatformError(f"version {version!r}: 1 to 100 of A-Z a-z 0-9 . _ - are possible")
        if not 1 <= len(name) <= model.NAME_MAX or not name.isprintable():
            raise PlatformError(
                f"firmware name {name!r}: 1 to {model.NAME_MAX} characters are possible"
            )
        if any(item.name == name for item in self._books.firmware.values()):
            raise PlatformError(f"firmware {name} exists already: choose another name")
        if len(self.firmware(product)) >= model.FILES_MAX:
            raise PlatformError(
                f"product {product} has {model.FILES_MAX} firmware files, the most possible"
            )


def _take_in(path, target):
    # Copies the file, in a thread. Returns its length in bytes and its MD5, of the file as it is.
    digest, size = hashlib.md5(usedforsecurity=False), 0
    shutil.rmtree(target.parent, ignore_errors=True)  # what an upload that was cut left behind
    target.parent.mkdir(parents=True)
    try:
        with path.open("rb") as source, target.open("wb") as copy:
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                if size > model.FILE_MAX:
                    raise PlatformError(f"{path.name} is longer than {model.FILE_MAX} bytes")
                digest.update(chunk)
                copy.write(chunk)
        if not size:
            raise PlatformError(f"{path.name} is empty")
    except BaseException:
        shutil.rmtree(target.parent, ignore_errors=True)
        raise
    return size, digest.hexdigest()
