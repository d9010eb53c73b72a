"""Which board a firmware file is for, when nobody says: the chip in its header."""

import tempfile
from pathlib import Path

from tools.image.look import look
from tools.image.pack import is_packed, unpack

from .manifest import SignError


def board_of(path: Path) -> str:
    """The chip that an image is for, also inside a .gz: esp32, esp32s3, ... Raises SignError."""
    data = path.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        if is_packed(data):
            path = Path(folder, "image")
            try:
                path.write_bytes(unpack(data))
            except ValueError as error:
                raise SignError(f"{error}: not signed") from error
        image = look(path)
    if image.problem:
        raise SignError(f"{image.problem}: not signed")
    return image.chip
