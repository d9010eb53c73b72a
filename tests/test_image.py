"""Images: what esptool and the boot loader make of them, descriptor, frozen modules, bad files."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from esptool.bin_image import LoadFirmwareImage

from tools.device.layout import OTA_4MIB, make_flash, table_bytes
from tools.device.port import appimage
from tools.device.port.flash import Flash
from tools.image import cli, wrong
from tools.image.archive import CompileError, compiled, frozen
from tools.image.build import DESCRIPTOR, build
from tools.image.firmware import SIZE, firmware, modules
from tools.image.look import look

MODULES = {"main": "print('hello')", "ota/__init__": "", "ota/agent": "X = 1\n" * 300}


@pytest.fixture
def image(tmp_path):
    return build(tmp_path / "good.bin", MODULES, version="1.2.3", project="lamp")


@pytest.fixture
def lib(tmp_path):
    """A stand-in for the MQTT client: what is frozen is not the matter here."""
    (tmp_path / "lib" / "umqtt").mkdir(parents=True)
    (tmp_path / "lib" / "umqtt" / "simple.py").write_text("class MQTTClient: pass\n")
    return tmp_path / "lib"


def boots(path: Path, generation: str) -> bool:
    """The boot loader's verdict on a file in ota_0."""
    place = path.with_suffix(".flash")
    make_flash(place, {"ota_0": path.read_bytes()})
    flash = Flash(str(place), generation)
    try:
        return appimage.verify(flash, 0x10000, 0x180000)
    finally:
        flash.close()


@pytest.mark.parametrize("size", [None, 0x8000, 0x28000, SIZE, 0x180000])
def test_esptool_and_both_boot_loaders_accept_every_size(tmp_path, size):
    path = build(tmp_path / "image.bin", MODULES, size=size)
    run = subprocess.run(
        [sys.executable, "-m", "esptool", "image-info", path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "Detected image type: ESP32\n" in run.stdout
    assert run.stdout.count("(valid)") == 2  # checksum and hash
    assert size in (None, path.stat().st_size)
    assert boots(path, "5.5")
    assert boots(path, "6.1")


def test_esptool_reads_the_descriptor(image):
    parsed = LoadFirmwareImage("esp32", str(image))
    fields = DESCRIPTOR.unpack(parsed.segments[0].data[: DESCRIPTOR.size])
    assert fields[0] == 0xABCD5432
    assert fields[2].rstrip(b"\0") == b"1.2.3"
    assert fields[3].rstrip(b"\0") == b"lamp"
    assert image.read_bytes()[32:36] == b"\x32\x54\xcd\xab"
    assert image.read_bytes()[48:53] == b"1.2.3"


def test_header_fields_lie_where_a_device_looks_for_them(image):
    data = image.read_bytes()
    assert data[0] == 0xE9
    assert data[1] == 3
    assert data[12:14] == b"\0\0"
    assert data[23] == 1
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()


def test_code_is_mapped_from_flash_and_begins_on_a_page(tmp_path):
    parsed = LoadFirmwareImage("esp32", str(build(tmp_path / "image.bin", MODULES, size=SIZE)))
    assert [hex(segment.addr) for segment in parsed.segments][::3] == ["0x3f400020", "0x400d0020"]
    assert parsed.entrypoint == 0x40080000


def test_same_input_gives_the_same_file_other_code_another_build(tmp_path, image):
    again = build(tmp_path / "b.bin", MODULES, version="1.2.3", project="lamp").read_bytes()
    assert again == image.read_bytes()
    other = build(tmp_path / "c.bin", MODULES | {"main": "print('other')"}).read_bytes()
    assert other[176:208] != again[176:208]  # the ELF's digest tells one build from another


def test_stock_firmware_leaves_the_version_empty(tmp_path):
    data = build(tmp_path / "stock.bin", MODULES).read_bytes()
    assert data[48:112] == bytes(64)


def test_frozen_modules_come_back(image):
    found = frozen(image.read_bytes())
    assert sorted(found) == ["main.mpy", "ota/__init__.mpy", "ota/agent.mpy"]
    assert found["ota/agent.mpy"] == compiled("ota/agent", MODULES["ota/agent"])
    assert found["ota/agent.mpy"][:2] == b"M\x06"


def test_frozen_modules_are_read_piece_by_piece(tmp_path):
    data = build(tmp_path / "image.bin", MODULES, size=SIZE).read_bytes()
    asked = []

    def read(offset, length):
        asked.append(length)
        return data[offset : offset + length]

    assert frozen(read) == frozen(data)
    assert sum(asked) < 0x20000


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"\xe9" * 24, b"text" * 99])
def test_no_image_has_no_frozen_modules(data):
    assert frozen(data) == {}


def test_damaged_archive_is_refused(image):
    data = bytearray(image.read_bytes())
    at = data.index(b"frozen modules\r\n") + 16
    data[at : at + 4] = (8).to_bytes(4, "little")
    with pytest.raises(ValueError, match="archive"):
        frozen(bytes(data))


def test_module_with_a_syntax_error_does_not_compile(tmp_path):
    with pytest.raises(CompileError, match="(?s)main: .*SyntaxError"):
        build(tmp_path / "image.bin", {"main": "def ("})


@pytest.mark.parametrize(
    ("options", "text"),
    [({"size": 1024}, "too small"), ({"chip": "esp33"}, "unknown"), ({"version": "9" * 32}, "31")],
)
def test_what_cannot_be_built_is_named(tmp_path, options, text):
    with pytest.raises(ValueError, match=text):
        build(tmp_path / "image.bin", MODULES, **options)


def test_wrong_files_are_told_apart(tmp_path, image):
    table = table_bytes(OTA_4MIB)
    rows = [
        (wrong.combined(tmp_path / "combined.bin", image, table), "esp32", "combined"),
        (wrong.other_chip(tmp_path / "s3.bin"), "esp32s3", ""),
        (wrong.flipped(tmp_path / "flipped.bin", image), "esp32", "checksum"),
        (wrong.flipped(tmp_path / "hash.bin", image, offset=-1), "esp32", "SHA-256"),
        (wrong.text(tmp_path / "text.bin"), "", "no image"),
    ]
    for path, chip, problem in rows:
        found = look(path)
        assert found.chip == chip, path
        assert problem in found.problem, path
        assert bool(problem) == bool(found.problem), path
    assert look(image).problem == ""


def test_boot_loaders_refuse_wrong_files(tmp_path, image):
    for path in (
        wrong.other_chip(tmp_path / "s3.bin"),
        wrong.flipped(tmp_path / "flipped.bin", image),
        wrong.text(tmp_path / "text.bin"),
    ):
        for generation in ("5.5", "6.1"):
            assert not boots(path, generation), (path, generation)


def test_combined_file_begins_like_an_image(tmp_path, image):
    data = wrong.combined(tmp_path / "combined.bin", image, table_bytes(OTA_4MIB)).read_bytes()
    assert data[0] == 0xE9
    assert data[0x7000:0x7002] == b"\xaa\x50"  # the table, at 0x8000 of the flash
    assert data[0xF000:] == image.read_bytes()
    assert data[32:36] != b"\x32\x54\xcd\xab"


def test_firmware_of_a_version_freezes_agent_client_and_application(tmp_path, lib):
    path = firmware(tmp_path / "image.bin", "2.0.0", app="print(2)", lib=lib)
    found = frozen(path.read_bytes())
    assert {"main.mpy", "firmware.mpy", "ota/__init__.mpy", "umqtt/simple.mpy"} <= set(found)
    assert "boot.mpy" not in found
    assert found["firmware.mpy"] == compiled("firmware", 'VERSION = "2.0.0"\n')
    assert path.stat().st_size == SIZE


def test_broken_firmware_leaves_out_or_replaces_modules(tmp_path, lib):
    changes = {"ota/__init__": None, "firmware": b"M\x05\0\0"}
    found = frozen(firmware(tmp_path / "i.bin", "2", changes, app="", lib=lib).read_bytes())
    assert "ota/__init__.mpy" not in found
    assert found["firmware.mpy"] == b"M\x05\0\0"


def test_firmware_without_its_libraries_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="umqtt"):
        modules("1.0.0", app="", lib=tmp_path)


def test_commands_build_and_inspect(tmp_path, lib, capsys):
    app = tmp_path / "app.py"
    app.write_text("print(1)\n")
    path = str(tmp_path / "image.bin")
    assert cli.main(["build", path, "1.0.0", "--app", str(app), "--lib", str(lib)]) == 0
    assert "good to upgrade with" in capsys.readouterr().out
    assert cli.main(["inspect", path]) == 0
    out = capsys.readouterr().out
    assert hashlib.md5(Path(path).read_bytes()).hexdigest() in out
    assert "esp32" in out
    assert cli.main(["inspect", str(app)]) == 1
    assert cli.main(["inspect", str(tmp_path / "none")]) == 1
