"""What a file is: each kind that somebody may take for firmware, made by what really makes it."""

import gzip
import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from esptool.targets import CHIP_DEFS

from tools.device.layout import OTA_4MIB, table_bytes
from tools.image import cli, wrong
from tools.image.build import build, filler, seal
from tools.image.fit import SLOT, read_table, slots_of
from tools.image.kind import APPLICATION, COMBINED, OTHER, combined, kind

CHIPS = {"esp32": 0x1000, "esp32s3": 0, "esp32c3": 0}  # where the boot loader lies in flash
CSV = """\
# Name,   Type, SubType, Offset,  Size, Flags
nvs,      data, nvs,     0x9000,  0x4000,
otadata,  data, ota,     0xd000,  0x2000,
phy_init, data, phy,     0xf000,  0x1000,
ota_0,    app,  ota_0,   0x10000, 0x180000,
ota_1,    app,  ota_1,   0x190000, 0x180000,
vfs,      data, fat,     0x310000, 0x0F0000,
"""


def application(folder: Path, chip: str) -> Path:
    modules = {"main": f"print({chip!r})", "firmware": 'VERSION = "1.2.3"\n'}
    return build(folder / f"{chip}.app-bin", modules, "1.2.3", "lamp", chip, size=200_000)


def merged(folder: Path, chip: str, *options: str) -> Path:
    """A combined image, as esptool makes it for a first flash."""
    ram = {name: start for start, _, name in CHIP_DEFS[chip].MEMORY_MAP}
    segments = [(ram["IRAM"], filler(0x1000, random.Random(0)))]
    loader, table = folder / "loader.bin", folder / "table.bin"
    loader.write_bytes(seal(segments, chip, entry=ram["IRAM"]))
    table.write_bytes(table_bytes(OTA_4MIB))
    target = folder / f"{chip}-combined.bin"
    command = [sys.executable, "-m", "esptool", "--chip", chip, "merge-bin", "-o", target]
    parts = [hex(CHIPS[chip]), loader, "0x8000", table, "0x10000", application(folder, chip)]
    subprocess.run([*command, *options, *parts], check=True, capture_output=True, timeout=60)
    return target


def inspected(path: Path, capsys, *options: str) -> tuple[dict, int]:
    status = cli.main(["inspect", str(path), "--json", *options])
    return json.loads(capsys.readouterr().out), status


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("chip", CHIPS)
def test_applications(tmp_path, capsys, chip, packed):
    path = application(tmp_path, chip)
    if packed:
        assert cli.main(["pack", str(path)]) == 0
        capsys.readouterr()
        path = path.with_name(path.name + ".gz")
    found, status = inspected(path, capsys)
    assert status == 0
    assert found["file"] == APPLICATION + (" in a .gz" if packed else "")
    about = found["chip"], found["version"], found["project"], found["IDF"], found["problem"]
    assert about == (chip, "1.2.3", "lamp", "v5.5.2", "")
    assert "fits" in found["slot"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("chip", CHIPS)
def test_combined_images(tmp_path, capsys, chip, packed):
    path = merged(tmp_path, chip)
    if packed:
        data = gzip.compress(path.read_bytes())
        path = path.with_name(path.name + ".gz")
        path.write_bytes(data)
    found, status = inspected(path, capsys)
    assert status == 1
    assert found["file"] == COMBINED + (" in a .gz" if packed else "")
    assert "`image extract`" in found["problem"]
    assert (found["chip"], found["version"]) == (chip, "1.2.3")
    assert cli.main(["extract", str(path)]) == 0
    out = path.with_name(f"{chip}-combined.app-bin")
    assert out.read_bytes() == (tmp_path / f"{chip}.app-bin").read_bytes()
    assert "good to upgrade with" in capsys.readouterr().out
    assert cli.main(["extract", str(path)]) == 1
    assert "--force" in capsys.readouterr().err


def test_a_combined_image_that_begins_at_the_boot_loader_or_is_filled(tmp_path, capsys):
    # esptool fills from address 0 on; MicroPython's own files begin at 0x1000.
    application(tmp_path, "esp32")
    begun = wrong.combined(tmp_path / "a.bin", tmp_path / "esp32.app-bin", table_bytes(OTA_4MIB))
    assert combined(begun.read_bytes()).base == 0x1000
    filled = merged(tmp_path, "esp32", "--pad-to-size", "4MB")
    assert combined(filled.read_bytes()).base == 0
    for path in (begun, filled):
        assert cli.main(["extract", str(path), "-o", str(tmp_path / "out"), "--force"]) == 0
        assert (tmp_path / "out").read_bytes() == (tmp_path / "esp32.app-bin").read_bytes()


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("firmware.bin", b"x" * 100)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(Path(sys.executable).read_bytes()[:100_000]), "ELF"),
        (lambda path: path.write_bytes(b"UF2\nWQ]\x9e" + bytes(504)), "UF2"),
        (lambda path: path.write_text("This is no firmware.\n" * 100), "a text file"),
        (lambda path: path.write_text(":10010000214601360121470136007EFE09D21901\n"), "Intel HEX"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_bytes(b"\xff" * 5000), "erased flash"),
        (lambda path: path.write_bytes(table_bytes(OTA_4MIB)), "a partition table"),
        (lambda path: path.write_bytes(b"M\x06\0\x1f" + bytes(40)), "a module of MicroPython"),
        (archive, "zip"),
        (lambda path: path.write_bytes(bytes(range(256)) * 40), "does not begin with 0xE9"),
    ],
)
def test_what_is_no_firmware(tmp_path, capsys, make, words):
    path = tmp_path / "file"
    make(path)
    found, status = inspected(path, capsys)
    assert (status, found["file"]) == (1, OTHER)
    assert words in found["problem"]
    assert cli.main(["extract", str(path)]) == 1
    assert words in capsys.readouterr().err


def test_damage(tmp_path, capsys):
    path = application(tmp_path, "esp32")
    whole = path.read_bytes()
    for data, words in (
        (whole[:-5000], "damaged, or cut"),
        (whole[:-1], "SHA-256 does not fit"),
        (whole[:40], "damaged, or cut"),
        (whole[:1000] + bytes((whole[1000] ^ 1,)) + whole[1001:], "does not fit"),
        (whole + b"x", "1 bytes after the end"),
        (whole[:23] + b"\7" + whole[24:], "damaged, or cut"),
    ):
        path.write_bytes(data)
        found, status = inspected(path, capsys)
        assert status == 1
        assert words in found["problem"], words
    path.write_bytes(gzip.compress(whole)[:-100])
    found, status = inspected(path, capsys)
    assert (status, found["problem"]) == (1, "the .gz is cut: its end is missing")


def test_a_combined_image_that_is_damaged_gives_no_application(tmp_path, capsys):
    path = merged(tmp_path, "esp32")
    whole = path.read_bytes()
    for data in (whole[:-5000], whole[:0x10400] + b"damage" + whole[0x10406:]):
        path.write_bytes(data)
        assert cli.main(["extract", str(path)]) == 1
        assert "the application in it is" in capsys.readouterr().err
        assert not list(tmp_path.glob("*combined.app-bin"))


def test_what_is_longer_than_any_flash_is_not_read(tmp_path, capsys):
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(10 << 30)
    for words in (["inspect"], ["extract"], ["check", "--port", "none"]):
        assert cli.main([words[0], str(path), *words[1:]]) == 1
        assert "no flash has more" in capsys.readouterr().err


def test_what_a_slot_holds_is_cut_to_its_image(tmp_path, capsys):
    path = application(tmp_path, "esp32")
    whole = path.read_bytes()
    path.write_bytes(whole + b"\xff" * 5000)
    assert cli.main(["extract", str(path), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_bytes() == whole


def test_an_application_needs_no_extracting(tmp_path, capsys):
    assert cli.main(["extract", str(application(tmp_path, "esp32"))]) == 1
    assert "it is the application already" in capsys.readouterr().err


# Tables


@pytest.mark.parametrize("binary", [False, True])
def test_tables(tmp_path, binary):
    path = tmp_path / "table"
    path.write_bytes(table_bytes(OTA_4MIB) if binary else CSV.encode())
    assert read_table(path) == (["ota_0", "ota_1"], SLOT)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n".join(line for line in CSV.splitlines() if "ota_1" not in line), "no two slots"),
        ("\n".join(line for line in CSV.splitlines() if "otadata" not in line), "no boot records"),
        ("factory,app,factory,0x10000,1M,\n", "no two slots"),
        ("This is no table.\n", "is no partition table"),
        ("", "no two slots"),
        (CSV.replace("0x190000", "0x20000"), "no partition table"),
    ],
)
def test_tables_that_do_not_do(tmp_path, capsys, text, words):
    path, image = tmp_path / "table.csv", application(tmp_path, "esp32")
    path.write_text(text)
    assert cli.main(["check", str(image), "--table", str(path)]) == 1
    assert words in capsys.readouterr().err


def test_check_against_a_table(tmp_path, capsys):
    path, image = tmp_path / "table.csv", application(tmp_path, "esp32")
    path.write_text(CSV)
    assert cli.main(["check", str(image), "--table", str(path)]) == 0
    small = CSV.replace("0x190000, 0x180000", "0x190000, 0x30000")
    path.write_text(small)  # the smaller one of two counts
    assert cli.main(["check", str(image), "--table", str(path)]) == 1
    assert "do not fit into a slot of 196,608: 3,392 too many" in capsys.readouterr().out
    found, status = inspected(image, capsys, "--table", str(path))
    assert (status, "do not fit" in found["problem"]) == (1, True)
    cli.main(["pack", str(image)])
    assert cli.main(["check", f"{image}.gz", "--table", str(path)]) == 1  # what counts is inside


def test_slots_of_a_board():
    rows = [row[:3] + row[4:] for row in OTA_4MIB]
    assert slots_of(rows) == (["ota_0", "ota_1"], SLOT)


def test_kinds_are_told_by_more_than_their_first_byte():
    assert kind(b"\xe9" + bytes(100)) == OTHER
    assert kind(b"") == OTHER
