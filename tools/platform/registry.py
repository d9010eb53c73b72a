"""
The registry: products, devices and firmware come in here, checked. Knows limits and files, nothing
of upgrades.
"""

import asyncio
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
from tools.sign.board import board_of
from tools.sign.keys import PrivateKey
from tools.sign.manifest import Manifest, Signed, SignError, digests

_CHUNK = 256 * 1024  # bytes


class Registry:
    """
    store: opened, read once here into books; files: where firmware files go; key: signs what is
    uploaded, None = nothing is signed here.
    """

    def __init__(self, store: Store, books: Books, files: Files, key: PrivateKey | None = None):
        self._store, self._books, self._files, self._key = store, books, files, key
        self._products = {product.key: product for product in store.load(Product)}
        for kind in (Device, Firmware, model.Batch, model.Task):
            for record in store.load(kind):
                books.enter(record)
        self._uploading = asyncio.Lock()

    def add_product(self, key: str = "", name: str = "", signed: bool = False) -> str:
        """
        A new product. key: "" = one is made up; signed: nothing else is published for it.
        Returns its key. Raises PlatformError.
        """
        key = model.check_id(key or "p" + secrets.token_hex(5), "product key")
        if key in self._products:
            raise PlatformError(f"product {key} exists already")
        product = Product(key, name or key, signed)
        self._store.save([product])
        self._products[key] = product
        return key

    def require_signed(self, key: str):
        """
        From now on nothing but signed firmware is published for this product. Raises
        PlatformError, also while a batch with another one is In Progress.
        """
        product = self._product(key)
        for batch in self._books.batches.values():
            firmware = self._books.firmware[batch.firmware]
            unsigned = firmware.product == key and not firmware.signature
            if unsigned and not self._books.at_rest(batch):
                raise PlatformError(
                    f"batch {batch.id} runs with firmware that is not signed: abort it first"
                )
        product.signed = True
        self._store.save([product])

    def check_published(self, firmware: Firmware):
        """Raises PlatformError when this one may not be published for its product."""
        if self._product(firmware.product).signed and not firmware.signature:
            raise PlatformError(
                f"firmware {firmware.name} is not signed, and product {firmware.product} takes "
                "signed firmware alone: upload it again with --manifest, or serve --signing-key"
            )

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
        self,
        product: str,
        path,
        version: str,
        name: str = "",
        file: str = "",
        signed: Signed | None = None,
        board: str = "",
    ) -> int:
        """
        A new firmware from a file, which is copied as it is.

        name: unique, 1 to 50 characters, "" = made of product and version; file: its name if not
        that of path; signed: its manifest, made elsewhere, None = signed here, where the platform
        has a key; board: whom it is signed for, "" = the chip of the image.
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
                found = await asyncio.to_thread(_take_in, path, target)
                firmware = Firmware(
                    number, product, name, version, file, found.size, found.md5, time.time()
                )
                await asyncio.to_thread(self._sign, firmware, found, target, signed, board)
            except OSError as error:
                shutil.rmtree(target.parent, ignore_errors=True)
                raise PlatformError(f"{path}: {error.strerror or error}") from error
            except (SignError, PlatformError) as error:
                shutil.rmtree(target.parent, ignore_errors=True)
                raise PlatformError(str(error)) from error
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

    def _sign(self, firmware, found, path, signed, board):
        # Fills in manifest, signature and sequence, in a thread. Raises SignError, PlatformError.
        if signed:
            manifest = Manifest.parse(signed.manifest)
            manifest.check(found)
            about = manifest.product, manifest.version
            if about != (firmware.product, firmware.version):
                raise SignError(f"the manifest is for product {about[0]}, version {about[1]}")
            if board and board != manifest.board:
                raise SignError(f"the manifest is for board {manifest.board}")
        elif self._key:
            others = self._books.firmware.values()
            sequence = max(
                (item.sequence for item in others if item.product == firmware.product), default=0
            )
            manifest = Manifest(
                firmware.product,
                board or board_of(path),
                firmware.version,
                found.md5,
                found.size,
                found.sha256,
                sequence + 1,
            )
            signed = self._key.sign(manifest)
        else:
            return
        firmware.manifest, firmware.signature = signed
        firmware.sequence = manifest.sequence

    def _product(self, key) -> Product:
        if key not in self._products:
            raise PlatformError(f"no product {key}")
        return self._products[key]

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
    # Copies the file, in a thread. Returns its Digests.
    size = 0
    shutil.rmtree(target.parent, ignore_errors=True)  # what an upload that was cut left behind
    target.parent.mkdir(parents=True)
    try:
        with path.open("rb") as source, target.open("wb") as copy:
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                if size > model.FILE_MAX:
                    raise PlatformError(f"{path.name} is longer than {model.FILE_MAX} bytes")
                copy.write(chunk)
        if not size:
            raise PlatformError(f"{path.name} is empty")
    except BaseException:
        shutil.rmtree(target.parent, ignore_errors=True)
        raise
    return digests(target)
