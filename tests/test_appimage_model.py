"""
What the golden verdicts leave open: images that fill a slot, mappings far off, long ones; and what
set_boot() accepts but the boot loader does not load.
"""

import struct
from hashlib import sha256

import pytest

from tools.device.layout import GENERATIONS, OTA_4MIB, table_bytes
from tools.device.port import appimage
from tools.device.port.flash import Flash
from tools.device.trace import Device
from tools.image import wrong
from tools.image.build import build

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


# (why, load address, length, does the boot loader load it?); set_boot() accepts all of them.
LOADS = [
    ("mapped data", DROM, 1024, True),
    ("padding", 0, 1024, True),
    ("data", 0x3FFB0000, 1024, True),
    ("before all data", 0x3FFADFFC, 1024, False),
    ("data up to the room for the stack", 0x3FFDBF20 - 1024, 1024, True),
    ("data into the room for the stack", 0x3FFDBF24 - 1024, 1024, False),
    ("the stack", 0x3FFE3F00, 1024, False),
    ("around the stack", 0x3FFD8000, 0x10000, False),
    ("between stack and data", 0x3FFE4000, 1024, False),
    ("the boot loader's data", 0x3FFF0030, 1024, False),
    ("the boot loader's data, but empty", 0x3FFF0030, 0, True),
    ("behind the boot loader's data", 0x3FFF6000, 1024, True),
    ("from data to instructions", 0x3FFFFE00, 1024, False),
    ("the boot loader's text", 0x40078000, 1024, False),
    ("instructions", 0x40080000, 0x1FC00, True),
    ("instructions to the end", 0x400AA000 - 1024, 1024, True),
    ("instructions beyond the end", 0x400AA004 - 1024, 1024, False),
    ("RTC slow memory", 0x50000000, 0x2000, True),
    ("RTC slow memory and more", 0x50000000, 0x2004, False),
    ("RTC fast memory, data", 0x3FF80000, 1024, True),
    ("RTC fast memory, instructions", 0x400C1C00, 1024, True),
    ("registers", 0x3FF44000, 1024, False),
    ("external RAM", 0x3F800000, 1024, False),
    ("nowhere", 0xF0000000, 1024, False),
]


@pytest.mark.parametrize(("why", "load", "length", "loaded"), LOADS)
def test_a_segment_over(why, load, length, loaded):
    chip = Flash(None, size=SLOT + 2 * SIZE)
    chip.poke(SLOT, image(length, load))
    assert appimage.verify(chip, SLOT, 2 * SIZE)
    assert appimage.verify(chip, SLOT, 2 * SIZE, loading=True) is loaded, why


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_combined_file_passes_set_boot_and_does_not_boot(generation, tmp_path):
    good = build(tmp_path / "good.bin", {"main": "print(1)"}, size=0x40000)  # code mapped, too
    combined = wrong.combined(tmp_path / "combined.bin", good, table_bytes(OTA_4MIB))
    images = {path.name: path.read_bytes() for path in (good, combined)}
    trace = {"idf": generation, "table": OTA_4MIB, "flashed": {"ota_0": good.name}}
    device = Device(trace, images.__getitem__)
    assert device.answer("start") == "ota_0"
    device.answer("load", "ota_1", combined.name)
    assert device.answer("set_boot", "ota_1") is None
    assert device.answer("boot") == "ota_1"
    assert device.answer("start") == "ota_0"  # the first try
    assert device.answer("start") == "ota_0"  # aborted by now
    device.answer("load", "ota_1", good.name)
    device.answer("set_boot", "ota_1")
    assert device.answer("start") == "ota_1"
