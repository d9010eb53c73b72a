"""What the golden verdicts leave open: images that fill a slot, mappings far off, long ones."""

import struct
from hashlib import sha256

import pytest

from tools.device.port import appimage
from tools.device.port.flash import Flash

SLOT, SIZE = 0x10000, 0x20000
DROM = 0x3F400020  # 64 KiB pages: as the data lies, 32 bytes into the slot


def image(length, load=DROM, hashed=True):
    """An application image with one segment of `length` random-looking bytes."""
    data = sha256(b"ota").digest() * (length // 32 + 1)
    header = struct.pack("<BBBBI4xHBHH4xB", 0xE9, 1, 2, 0x20, 0x40080000, 0, 0, 0, 0xFFFF, hashed)
    body = header + struct.pack("<II", load, length) + data[:length]
    check = 0xEF
    for byte in data[:length]:
        check ^= byte
    body += bytes(15 - len(body) % 16) + bytes([check])
    return body + sha256(body).digest() if hashed else body


@pytest.fixture
def chip():
    """A slot with another one behind it."""
    return Flash(None, size=SLOT + 2 * SIZE)


FULL = SIZE - 32 - 16 - 32  # header and segment header, checksum block, digest

# (why, image, accepted)
IMAGES = [
    ("fills the slot", image(FULL), True),
    ("16 bytes beyond the slot", image(FULL + 16), False),
    ("beyond the slot without a hash", image(SIZE, hashed=False), False),
    ("beyond the chip", image(3 * SIZE), False),
    ("mapped 4 KiB off", image(1024, DROM + 0x1000), False),
    ("mapped 60 KiB off", image(1024, DROM + 0xF000), False),
    ("mapped a page further", image(1024, DROM + 0x10000), True),
    ("not mapped: loaded", image(1024, 0x3FFB1000), True),
]


@pytest.mark.parametrize(("why", "content", "accepted"), IMAGES)
def test_an_image_that(why, content, accepted, chip):
    chip.poke(SLOT, content[: chip.size - SLOT])
    assert appimage.verify(chip, SLOT, SIZE) is accepted, why


def test_every_block_counts(chip):
    content = image(FULL)
    chip.poke(SLOT, content)
    for at in range(4, len(content), 1021):
        chip.poke(SLOT + at, bytes([content[at] ^ 0x10]))
        assert not appimage.verify(chip, SLOT, SIZE), at
        chip.poke(SLOT + at, content[at : at + 1])
    assert appimage.verify(chip, SLOT, SIZE)
