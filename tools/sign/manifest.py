"""
The manifest: one line of text that names a file, and who it is for. What ota/trust.py reads.

Source: docs/trust.md, "The manifest".
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ota.protocol import is_text

MAGIC = "ota1"
SEQUENCE_MAX = 9_999_999_999  # ten digits
_CHUNK = 256 * 1024  # bytes
_DIGITS = re.compile(r"[0-9a-f]+")


class SignError(ValueError):
    """What cannot be signed or verified, in one sentence for the person who asked."""


class Digests(NamedTuple):
    """Of a file as it is: size in bytes, MD5 and SHA-256 as hex digits."""

    size: int
    md5: str
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """
    product, board, version: whom it is for; size: bytes, md5, sha256: hex digits, of the file as
    it is on the server; sequence: 0 to 9,999,999,999, higher than all before; back_from: 0, or the
    sequence from which this is a deliberate downgrade.
    Raises SignError.
    """

    product: str
    board: str
    version: str
    md5: str
    size: int
    sha256: str
    sequence: int
    back_from: int = 0

    def __post_init__(self):
        for what, value, extra, most in (
            ("product key", self.product, "._-:@", 64),
            ("board", self.board, "._-", 64),
            ("version", self.version, "._-", 100),
        ):
            if not is_text(value, extra, most):
                raise SignError(
                    f"{what} {value!r}: 1 to {most} of A-Z a-z 0-9 {' '.join(extra)} are possible"
                )
        for what, value, length in (("MD5", self.md5, 32), ("SHA-256", self.sha256, 64)):
            if len(value) != length or not _DIGITS.fullmatch(value):
                raise SignError(f"{what} {value!r}: {length} hex digits are needed, in lower case")
        if self.size < 1:
            raise SignError("the file is empty")
        for what, number in (("sequence", self.sequence), ("sequence", self.back_from)):
            if not 0 <= number <= SEQUENCE_MAX:
                raise SignError(f"{what} {number}: 0 to {SEQUENCE_MAX} are possible")
        if self.back_from and self.back_from <= self.sequence:
            raise SignError(
                f"a downgrade goes down: from {self.back_from} to a lower sequence, "
                f"not to {self.sequence}"
            )

    def __str__(self) -> str:
        fields = (
            MAGIC,
            self.product,
            self.board,
            self.version,
            self.md5,
            self.size,
            self.sha256,
            f"{self.sequence:010}",
            f"{self.back_from:010}",
        )
        return " ".join(map(str, fields))

    @classmethod
    def parse(cls, text: str) -> "Manifest":
        """Raises SignError for what is none."""
        parts = text.split(" ")
        if len(parts) != 9 or parts[0] != MAGIC:
            raise SignError(f"no manifest of the format {MAGIC}")
        _, product, board, version, md5, size, sha256, sequence, back_from = parts
        try:
            numbers = int(size), int(sequence), int(back_from)
        except ValueError as error:
            raise SignError(f"manifest: {error}") from error
        found = cls(product, board, version, md5, numbers[0], sha256, *numbers[1:])
        if str(found) != text:
            raise SignError("the manifest is not written as it should be")
        return found

    def check(self, digests: Digests) -> None:
        """Raises SignError when it is about another file."""
        own = Digests(self.size, self.md5, self.sha256)
        for what in Digests._fields:
            if getattr(own, what) != getattr(digests, what):
                raise SignError(f"the manifest is for another file: its {what} is another")


class Signed(NamedTuple):
    """A manifest and its signature, as they stand in a command: text, hex digits."""

    manifest: str
    signature: str

    def write(self, path: Path) -> None:
        """Writes the file that goes along with a firmware file."""
        path.write_text(json.dumps(self._asdict(), indent=1) + "\n", encoding="ascii")

    @classmethod
    def read(cls, path: Path) -> "Signed":
        """Raises SignError, OSError."""
        try:
            data = json.loads(path.read_text(encoding="ascii"))
            found = cls(data["manifest"], data["signature"])
        except (ValueError, KeyError, TypeError) as error:
            raise SignError(f"{path}: not what `sign sign` writes") from error
        if not all(isinstance(text, str) for text in found):
            raise SignError(f"{path}: not what `sign sign` writes")
        return found


def digests(path: Path) -> Digests:
    """Reads a file once. Raises OSError."""
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            md5.update(chunk)
            sha256.update(chunk)
            size += len(chunk)
    return Digests(size, md5.hexdigest(), sha256.hexdigest())
