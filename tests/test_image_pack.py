"""Images as .gz: the header, what MicroPython makes of them, what is refused."""

import gzip
import subprocess
import zlib

import pytest

from tools.image import cli, wrong
from tools.image.build import build
from tools.image.pack import INFLATED_MAX, WINDOWS, is_packed, pack, told, unpack
from tools.toolchain import micropython

# In MicroPython: inflates FILE with that window, prints how many bytes came and their CRC-32.
_INFLATE = """
import binascii, deflate, sys
crc = size = 0
with open(sys.argv[1], "rb") as file:
    stream = deflate.DeflateIO(file, deflate.GZIP, int(sys.argv[2]))
    while True:
        piece = stream.read(512)
        if not piece:
            break
        crc = binascii.crc32(piece, crc)
        size += len(piece)
print(size, crc)
"""


@pytest.fixture
def image(tmp_path):
    # Text that comes again from far behind, so that each window matters.
    return build(tmp_path / "app.bin", {"main": "X = 1\n" * 300}, version="1.2.3", size=120_000)


def far(distance: int) -> bytes:
    """The same 300 bytes, so far behind each other; nothing else comes again."""
    noise = b"".join(zlib.crc32(bytes((i & 255, i >> 8))).to_bytes(4, "big") for i in range(9000))
    return noise[:300] + noise[300:distance] + noise[:300]


def inflated(path, window: int) -> str:
    script = path.with_suffix(".py")
    script.write_text(_INFLATE)
    command = [micropython(), script, path, str(window)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() or "failed"


def test_header():
    data = b"\xe9" * 1000
    packed = pack(data)
    assert packed[:10] == bytes.fromhex("1f8b08040000000002ff")
    assert packed[10:16] == b"\x09\x00MP\x05\x00"
    assert packed[16] == 12
    assert packed[17:21] == (1000).to_bytes(4, "little")
    assert packed[-8:] == zlib.crc32(data).to_bytes(4, "little") + (1000).to_bytes(4, "little")
    assert pack(data) == packed


@pytest.mark.parametrize("window", WINDOWS.values())
def test_any_gzip_reads_it(window, image):
    data = image.read_bytes()
    packed = pack(data, window)
    assert gzip.decompress(packed) == unpack(packed) == data
    found = told(packed)
    assert (found.size, found.inflated, found.window) == (len(packed), len(data), window)
    assert found.told


@pytest.mark.parametrize("window", [9, 10, 12, 15])
def test_device_inflates_it_with_the_window_that_it_tells(window, tmp_path):
    data = far((1 << window) - 600) * 3
    path = tmp_path / "x.gz"
    path.write_bytes(pack(data, window))
    assert inflated(path, window) == f"{len(data)} {zlib.crc32(data)}"


def test_device_cannot_inflate_it_with_a_smaller_window(tmp_path):
    data = far(3000) * 3
    path = tmp_path / "x.gz"
    path.write_bytes(pack(data, 12))
    assert inflated(path, 10) != f"{len(data)} {zlib.crc32(data)}"


def test_other_gzip_tells_no_window(image):
    found = told(gzip.compress(image.read_bytes()))
    assert (found.told, found.window) == (False, 15)


@pytest.mark.parametrize("window", [8, 16, 0])
def test_windows_that_there_are_not(window):
    with pytest.raises(ValueError, match="9 to 15"):
        pack(b"x", window)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda packed: packed[:-9], "cut"),
        (lambda packed: packed[:100] + b"\xff\xff" + packed[102:], "damaged"),
        (lambda packed: packed + b"xyz", "3 bytes after the end"),
        (lambda packed: packed[:16] + b"\x08" + packed[17:], "not its own"),
        (lambda packed: packed[:17] + b"\0" + packed[18:], "not its own"),
    ],
)
def test_spoilt_ones(change, words, image):
    with pytest.raises(ValueError, match=words):
        told(change(pack(image.read_bytes())))


def test_bomb_is_bounded():
    with pytest.raises(ValueError, match="16 MiB"):
        unpack(pack(bytes(INFLATED_MAX + 1)))


def test_command_line(image, capsys):
    assert cli.main(["pack", str(image)]) == 0
    target = image.with_name("app.bin.gz")
    assert unpack(target.read_bytes()) == image.read_bytes()
    out = capsys.readouterr().out
    assert "% saved" in out
    assert "4,096" in out
    assert told(target.read_bytes()).md5 in out
    assert cli.main(["pack", str(image)]) == 1
    assert "--force" in capsys.readouterr().err
    assert cli.main(["pack", str(image), "--force", "--window", "32K"]) == 0
    assert told(target.read_bytes()).window == 15
    assert not list(image.parent.glob("*.part"))


def test_inspect_looks_inside(image, capsys):
    cli.main(["pack", str(image)])
    capsys.readouterr()
    assert cli.main(["inspect", f"{image}.gz"]) == 0
    out = capsys.readouterr().out
    assert "version  1.2.3" in out
    assert "good to upgrade with" in out


def test_only_good_images_are_packed(image, tmp_path, capsys):
    for path, words in (
        (wrong.text(tmp_path / "a.txt"), "a text file"),
        (wrong.flipped(tmp_path / "flipped.bin", image), "damaged"),
        (wrong.combined(tmp_path / "combined.bin", image, b"\xff"), "combined"),
        (tmp_path / "none.bin", "No such file"),
    ):
        assert cli.main(["pack", str(path)]) == 1
        assert words in capsys.readouterr().err
    cli.main(["pack", str(image)])
    assert cli.main(["pack", f"{image}.gz"]) == 1
    assert "already" in capsys.readouterr().err
    assert is_packed(image.with_name("app.bin.gz").read_bytes())
