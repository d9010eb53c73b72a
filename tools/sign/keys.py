"""
RSA keys of an owner of devices: made, read, used. Source: RFC 8017 (PKCS#1 v1.5 with SHA-256).
"""

import os
import re
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .manifest import Signed, SignError

BITS = (2048, 3072)
_HEX = re.compile("|".join(f"[0-9a-f]{{{bits // 4}}}" for bits in BITS))
_EXPONENT = 65537  # that of ota/trust.py
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class PrivateKey:
    """A key that signs; `repr` and `str` tell nothing of it."""

    def __init__(self, key: rsa.RSAPrivateKey):
        self._key = key

    @property
    def modulus(self) -> str:
        """The public key, as in PUBLIC_KEYS of boot.py: hex digits."""
        return modulus_of(self._key.public_key())

    def sign(self, manifest) -> Signed:
        """manifest: a Manifest, or its text."""
        text = str(manifest)
        signature = self._key.sign(text.encode("ascii"), padding.PKCS1v15(), hashes.SHA256())
        return Signed(text, signature.hex())

    def verify(self, signed: Signed) -> None:
        """Raises SignError when the signature is not that of this key."""
        verify(self._key.public_key(), signed)


def generate(path: Path, bits: int = BITS[0]) -> PrivateKey:
    """
    Makes a key, in a new file that its owner alone may read (PEM, PKCS#8). Raises SignError when
    the file is there already: a key that is lost cannot be made again.
    """
    if bits not in BITS:
        raise SignError(f"{bits} bits: {' or '.join(map(str, BITS))} are possible")
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise SignError(f"{path} is there already, and is left as it is") from error
    key = rsa.generate_private_key(_EXPONENT, bits)
    with open(file, "wb") as stream:
        stream.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    return PrivateKey(key)


def load_private(path: Path) -> PrivateKey:
    """Raises SignError: others may read the file, or it holds no such key; OSError."""
    with path.open("rb") as stream:
        mode = os.fstat(stream.fileno()).st_mode
        if os.name == "posix" and mode & _OTHERS:
            raise SignError(
                f"{path}: others may read this private key (mode {stat.S_IMODE(mode):04o}). "
                f"Make it yours alone: chmod 600 {path}; if others may have read it, make another"
            )
        data = stream.read()
    try:
        key = serialization.load_pem_private_key(data, None)
    except TypeError as error:
        raise SignError(f"{path}: the key has a passphrase, and nobody here to ask") from error
    except ValueError as error:
        raise SignError(f"{path} holds no private key in PEM") from error
    _check(key.public_key() if isinstance(key, rsa.RSAPrivateKey) else None, path)
    return PrivateKey(key)


def load_public(text: str) -> rsa.RSAPublicKey:
    """
    text: the modulus as hex digits, or the name of a PEM file with the private or the public key.
    Raises SignError, OSError.
    """
    if _HEX.fullmatch(text):
        return rsa.RSAPublicNumbers(_EXPONENT, int(text, 16)).public_key()
    path = Path(text)
    data = path.read_bytes()
    if b"PRIVATE KEY" in data:
        return load_public(load_private(path).modulus)
    try:
        key = serialization.load_pem_public_key(data)
    except ValueError as error:
        raise SignError(f"{path} holds no key in PEM") from error
    return _check(key, path)


def modulus_of(key: rsa.RSAPublicKey) -> str:
    """As in PUBLIC_KEYS of boot.py: hex digits."""
    return f"{key.public_numbers().n:0{key.key_size // 4}x}"


def check_signature(signed: Signed) -> None:
    """Raises SignError when the signature cannot be one, whatever the key."""
    if not _HEX.fullmatch(signed.signature):
        lengths = " or ".join(str(bits // 4) for bits in BITS)
        raise SignError(f"the signature is none: {lengths} hex digits are needed, in lower case")


def verify(key: rsa.RSAPublicKey, signed: Signed) -> None:
    """Raises SignError when the signature is not that of this key."""
    try:
        signature = bytes.fromhex(signed.signature)
        key.verify(signature, signed.manifest.encode(), padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError) as error:
        raise SignError("the signature is not that of this key for this manifest") from error


def _check(key, path):
    good = isinstance(key, rsa.RSAPublicKey) and key.key_size in BITS
    if not good or key.public_numbers().e != _EXPONENT:
        raise SignError(f"{path}: RSA with 2048 or 3072 bits and the exponent 65537 is needed")
    return key
