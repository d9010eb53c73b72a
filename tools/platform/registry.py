"""
The registry: products, devices and firmware come in here, checked. Knows limits and files, nothing
of upgrades.
"""

import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from tools.platform import model, tables, wire
from tools.platform.files import Files
from tools.platform.model import AT_REST, Device, Firmware, NotFound, PlatformError, Product, same
from tools.platform.store import Store, Transaction
from tools.sign.board import board_of
from tools.sign.keys import PrivateKey, check_signature
from tools.sign.manifest import Manifest, Signed, SignError, digests

PAGE = 1000  # rows at a time, the most

_CHUNK = 256 * 1024  # bytes
_devices, _firmware, _batches, _tasks = (
    tables.devices,
    tables.firmware,
    tables.batches,
    tables.tasks,
)


class Registry:
    """
    files: where firmware files go; key: signs what is uploaded, and what was signed elsewhere must
    be signed with it, None = nothing is signed here; show_out: called with the identifier of a
    device whose secret holds no more. Its calls may be made from any thread.
    """

    def __init__(
        self,
        store: Store,
        files: Files,
        key: PrivateKey | None,
        show_out: Callable[[str], None],
    ):
        self._store, self._files, self._key, self._show_out = store, files, key, show_out

    # Products

    def add_product(self, key: str = "", name: str = "", signed: bool = False) -> str:
        """
        A new product. key: "" = one is made up; signed: nothing else is published for it.
        Returns its key. Raises PlatformError.
        """
        key = model.check_id(key or "p" + secrets.token_hex(5), "product key")
        name = model.check_name(name or key[: model.NAME_MAX], "product name")
        try:
            with self._store.begin() as tx:
                tx.insert([Product(key, name, signed)])
        except IntegrityError as error:
            raise PlatformError(f"product {key} exists already") from error
        return key

    def require_signed(self, key: str):
        """
        From now on nothing but signed firmware is published for this product. Raises
        PlatformError, also while a batch with another one is In Progress.
        """
        with self._store.begin() as tx:
            product = _product(tx, key, lock=True)
            unsigned = _firmware.c.product == key, _firmware.c.signature == ""
            _check_rest(tx, "firmware that is not signed", *unsigned)
            product.signed = True
            tx.update([product])

    def products(self) -> list[dict]:
        with self._store.begin() as tx:
            return [asdict(product) for product in tx.find(Product)]

    # Devices

    def add_device(self, product: str, identifier: str, name: str = "") -> str:
        """A new device. Returns its secret. Raises PlatformError."""
        model.check_id(identifier, "identifier")
        name = model.check_name(name or identifier[: model.NAME_MAX], "device name")
        device = Device(product, identifier, secrets.token_hex(16), name)
        try:
            with self._store.begin() as tx:
                _product(tx, product)
                tx.insert([device])
        except IntegrityError as error:
            raise PlatformError(_exists(identifier)) from error
        return device.secret

    def add_devices(self, product: str, identifiers: list[str]) -> list[dict]:
        """
        Many at once, all or none. Those that the product has already stay as they are, so that the
        same call may come again. Returns product, identifier and secret of each. Raises
        PlatformError.
        """
        for identifier in identifiers:
            model.check_id(identifier, "identifier")
        try:
            with self._store.begin() as tx:
                _product(tx, product)
                known = {device.identifier: device for device in tx.devices_named(identifiers)}
                for device in known.values():
                    if device.product != product:
                        raise PlatformError(_exists(device.identifier))
                new = {
                    name: Device(product, name, secrets.token_hex(16), name[: model.NAME_MAX])
                    for name in identifiers
                    if name not in known
                }
                tx.insert(list(new.values()))
        except IntegrityError as error:
            raise PlatformError("somebody adds the same devices: try again") from error
        found = known | new
        return [_login(found[name]) for name in identifiers]

    def renew_secret(self, identifier: str) -> dict:
        """
        A new secret; the one before holds no more, and who is connected with it is shown out.
        Returns product, identifier and secret. Raises PlatformError.
        """
        with self._store.begin() as tx:
            device = _locked(tx, identifier)
            device.secret = secrets.token_hex(16)
            tx.update([device])
        self._show_out(identifier)
        return _login(device)

    def remove_device(self, identifier: str):
        """
        With its log, and its part of all batches. It does not come in any more; the firmware that
        it has stays as it is. Raises PlatformError, also while a batch with it is In Progress: a
        failure that is forgotten would let a roll-out go on.
        """
        with self._store.begin() as tx:
            device = _locked(tx, identifier)
            mine = sa.select(_tasks.c.batch).where(
                _tasks.c.product == device.product, _tasks.c.identifier == identifier
            )
            _check_rest(tx, f"device {identifier}", _batches.c.id.in_(mine), ~_batches.c.aborted)
            tx.forget_device(device.key)
            tx.delete(Device, _devices.c.identifier == identifier)
        self._show_out(identifier)

    def devices(
        self, product: str = "", secrets: bool = False, after: str = "", limit: int = PAGE
    ) -> list[dict]:
        """
        By their identifiers. product: "" = all; secrets: with their secrets; after: behind that
        identifier.
        """
        where = [_devices.c.identifier > after]
        if product:
            where.append(_devices.c.product == product)
        with self._store.begin() as tx:
            found = tx.find(Device, *where, order=[_devices.c.identifier], limit=min(limit, PAGE))
        rows = [asdict(device) for device in found]
        return rows if secrets else [_without_secret(row) for row in rows]

    def device(self, identifier: str) -> dict:
        """Without its secret. Raises PlatformError."""
        with self._store.begin() as tx:
            return _without_secret(asdict(find_device(tx, identifier)))

    def may_log_in(self, client_id: str, user: str, password: str) -> bool:
        """The login of a device, see docs/protocol.md."""
        return not self.why_not(client_id, user, password)

    def why_not(self, client_id: str, user: str, password: str) -> str:
        """What is wrong with a login, for who runs the platform; "" = nothing."""
        product, _, identifier = user.partition("&")
        with self._store.begin() as tx:
            device = tx.get(Device, product, identifier)
        if device is None:
            return "there is no such device: PRODUCT_KEY or IDENTIFIER is wrong"
        if client_id != identifier:
            return "its client id is not its identifier"
        return "" if same(password, device.secret) else "DEVICE_SECRET is wrong"

    # Firmware

    def firmware(self, product: str = "") -> list[dict]:
        """product: "" = all."""
        where = [~_firmware.c.removed]
        if product:
            where.append(_firmware.c.product == product)
        with self._store.begin() as tx:
            return [asdict(item) for item in tx.find(Firmware, *where)]

    def find_firmware(self, firmware: int | str) -> Firmware:
        """By id (int) or name (str). Raises PlatformError when there is none."""
        with self._store.begin() as tx:
            return find_firmware(tx, firmware)

    def upload(
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

        name: unique, 1 to 50 characters, not digits alone, "" = made of product and version; file:
        its name if not that of path; signed: its manifest, made elsewhere, None = signed here,
        where the platform has a key; board: whom it is signed for, "" = the chip of the image.
        Returns its id. Raises PlatformError.
        """
        path = Path(path)
        name = model.check_name(name or f"{product}-{version}"[: model.NAME_MAX], "firmware name")
        if name.isdecimal():
            raise PlatformError(f"firmware name {name!r}: digits alone are the id of a firmware")
        file = model.check_file(file or path.name)
        if not wire.is_version(version):
            raise PlatformError(f"version {version!r}: 1 to 100 of A-Z a-z 0-9 . _ - are possible")
        with self._store.begin() as tx:  # before the work, and once more with the product locked
            self._check_room(tx, product, name)
        coming = self._files.folder / f"coming-{secrets.token_hex(8)}"
        try:
            found = _take_in(path, coming / file, file)
            with self._store.begin() as tx:
                self._check_room(tx, product, name)
                about = found.size, found.md5, time.time()
                firmware = Firmware(0, product, name, version, file, *about)
                self._sign(tx, firmware, found, coming / file, signed, board)
                number = tx.insert_numbered(firmware)
                target = self._files.folder / str(number)
                shutil.rmtree(target, ignore_errors=True)  # of one that came to nothing
                coming.rename(target)
            return number
        except OSError as error:
            raise PlatformError(f"{path}: {error.strerror or error}") from error
        except SignError as error:
            raise PlatformError(str(error)) from error
        except IntegrityError as error:
            raise PlatformError(f"firmware {name} exists already: choose another name") from error
        finally:
            shutil.rmtree(coming, ignore_errors=True)

    def remove_firmware(self, firmware: int | str):
        """
        With its file, by id (int) or name (str). Batches that had it keep their history. Raises
        PlatformError, also while one is In Progress.
        """
        with self._store.begin() as tx:
            found = find_firmware(tx, firmware)
            _product(tx, found.product, lock=True)
            found = find_firmware(tx, found.id)  # now nobody else removes it, or begins a batch
            _check_rest(tx, f"firmware {found.name}", _firmware.c.id == found.id)
            # Its name is free again.
            mark = f" (removed, {found.id})"
            found.name = found.name[: model.NAME_MAX - len(mark)] + mark
            found.removed = True
            tx.update([found])
        shutil.rmtree(self._files.folder / str(found.id), ignore_errors=True)

    def _check_room(self, tx, product, name):
        # The lock makes numbers and sequences of one product follow each other.
        _product(tx, product, lock=True)
        if tx.count(Firmware, _firmware.c.name == name):
            raise PlatformError(f"firmware {name} exists already: choose another name")
        if tx.count(Firmware, _firmware.c.product == product, ~_firmware.c.removed) >= (
            model.FILES_MAX
        ):
            raise PlatformError(
                f"product {product} has {model.FILES_MAX} firmware files, the most possible: "
                "remove one"
            )

    def _sign(self, tx, firmware, found, path, signed, board):
        # Fills in manifest, signature and sequence. Raises SignError.
        if signed:
            manifest = Manifest.parse(signed.manifest)
            manifest.check(found)
            about = manifest.product, manifest.version
            if about != (firmware.product, firmware.version):
                raise SignError(f"the manifest is for product {about[0]}, version {about[1]}")
            if board and board != manifest.board:
                raise SignError(f"the manifest is for board {manifest.board}")
            check_signature(signed)
            if self._key:
                self._key.verify(signed)
        elif self._key:
            highest = sa.select(sa.func.max(_firmware.c.sequence))
            sequence = tx.scalar(highest.where(_firmware.c.product == firmware.product)) or 0
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


def find_device(tx: Transaction, identifier: str) -> Device:
    """Raises NotFound."""
    for device in tx.find(Device, _devices.c.identifier == identifier):
        return device
    raise NotFound(f"no device {identifier}")


def find_devices(tx: Transaction, product: str, identifiers: list[str] | None) -> list[Device]:
    """
    Those of one product, None = all of it; locked. Raises PlatformError when one is unknown or of
    another product.
    """
    if identifiers is None:
        return tx.find(Device, _devices.c.product == product, lock=True)
    found = tx.devices_named(identifiers)
    missing = sorted(set(identifiers) - {device.identifier for device in found})
    if missing:
        raise NotFound(f"no device {missing[0]}")
    for device in found:
        if device.product != product:
            raise PlatformError(f"device {device.identifier} is not of product {product}")
    return found


def find_firmware(tx: Transaction, firmware: int | str) -> Firmware:
    """By id (int) or name (str). Raises NotFound."""
    column = _firmware.c.id if type(firmware) is int else _firmware.c.name
    for item in tx.find(Firmware, column == firmware, ~_firmware.c.removed):
        return item
    raise NotFound(f"no firmware {firmware}")


def find_to_publish(tx: Transaction, firmware: int | str) -> Firmware:
    """
    As find_firmware. Raises PlatformError when this one may not be published for its product;
    locks that, so that nobody decides otherwise meanwhile.
    """
    product = _product(tx, find_firmware(tx, firmware).product, lock=True)
    found = find_firmware(tx, firmware)
    if product.signed and not found.signature:
        raise PlatformError(
            f"firmware {found.name} is not signed, and product {product.key} takes signed "
            "firmware alone: upload it again with --manifest, or serve --signing-key"
        )
    return found


def _check_rest(tx, what, *where):
    # Raises PlatformError while such a batch has devices that are not at rest.
    query = (
        sa.select(_tasks.c.batch)
        .join(_batches, _batches.c.id == _tasks.c.batch)
        .join(_firmware, _firmware.c.id == _batches.c.firmware)
        .where(*where, _tasks.c.status.not_in(AT_REST))
        .limit(1)
    )
    batch = tx.scalar(query)
    if batch is not None:
        raise PlatformError(f"batch {batch} runs with {what}: abort it first, or wait")


def _locked(tx, identifier) -> Device:
    for device in tx.devices_named([identifier]):
        return device
    raise NotFound(f"no device {identifier}")


def _exists(identifier):
    # Of another product too: it is the MQTT client id, by which a broker knows one client.
    return f"device {identifier} exists already"


def _product(tx, key, lock=False) -> Product:
    found = tx.get(Product, key, lock=lock)
    if found is None:
        raise NotFound(f"no product {key}")
    return found


def _login(device):
    return {
        "product": device.product,
        "identifier": device.identifier,
        "secret": device.secret,
    }


def _without_secret(row):
    return {key: value for key, value in row.items() if key != "secret"}


def _take_in(path, target, name):
    # Copies the file. Returns its Digests.
    size = 0
    target.parent.mkdir(parents=True)
    with path.open("rb") as source, target.open("wb") as copy:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > model.FILE_MAX:
                raise PlatformError(f"{name} is longer than {model.FILE_MAX} bytes")
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())  # the data base does so too: no record without its file
    if not size:
        raise PlatformError(f"{name} is empty")
    return digests(target)
