"""The flash chip of the simulated ESP32: NOR rules, counters, faults; in a device process too."""

import os
import subprocess
from pathlib import Path

import pytest

from tools.device import layout
from tools.device.port import bootloader, flash
from tools.device.port.esp32 import Chip, Partition
from tools.device.port.flash import Flash, PowerCut, read_counters, read_rtc
from tools.toolchain import micropython

GOLDEN = Path(__file__).parent / "golden"
PORT = Path(flash.__file__).parent
GOOD = (GOLDEN / "images" / "good-1.bin").read_bytes()
OTA_1 = 0x190000

ERASED = b"\xff" * 4096


@pytest.fixture
def chip():
    return Flash(None, size=0x10000)


@pytest.fixture
def path(tmp_path):
    """A flash file with a bootable image in ota_0."""
    path = tmp_path / "flash.bin"
    layout.make_flash(path, {"ota_0": GOOD})
    return str(path)


def run(path, script, fault=""):
    """Run a script in a device process; its CompletedProcess."""
    return subprocess.run(
        [micropython(), "-X", "heapsize=160k", "-c", script],
        env={
            "MICROPYPATH": str(PORT),
            "OTA_SIM_FLASH": path,
            "OTA_SIM_FAULT": fault,
            "PATH": os.environ["PATH"],
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_program_clears_bits_and_never_sets_one(chip):
    chip.program(10, b"\xf0\x0f")
    chip.program(10, b"\x3c\x0f")
    assert bytes(chip.read(9, 4)) == b"\xff\x30\x0f\xff"


def test_violations_are_bytes_in_which_a_0_should_become_1(chip):
    chip.program(0, b"\x00\x0f\x0f")
    assert chip.violations == 0
    chip.program(0, b"\x00\x0f\x1f")
    assert chip.violations == 1
    chip.program(0, b"\xff\xff\x00")
    assert chip.violations == 3
    chip.erase(0)
    chip.program(0, b"\x55")
    assert chip.violations == 3


def test_operations_are_sectors_and_pages(chip):
    chip.erase(4096)
    assert (chip.operations, chip.erases) == (1, 1)
    chip.program(4096 + 250, bytes(300))  # pages of 256: 6 + 256 + 38 bytes
    assert (chip.operations, chip.erases) == (4, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda chip: chip.erase(100),
        lambda chip: chip.erase(chip.size),
        lambda chip: chip.program(chip.size - 1, b"ab"),
        lambda chip: chip.read(chip.size, 1),
    ],
)
def test_outside_of_the_chip_is_an_argument_error(chip, call):
    with pytest.raises(OSError, match="-258"):
        call(chip)
    assert chip.operations == 0


# (kind, number, what an erase leaves of 4096 zeros, what programming 8 bytes of 0xA5 leaves)
CUTS = [
    ("before", None, bytes(4096), b"\xff" * 8),
    ("after", None, ERASED, b"\xa5" * 8),
    ("torn", 0, bytes(4096), b"\xff" * 8),
    ("torn", 3, b"\xff" * 3 + bytes(4093), b"\xa5" * 3 + b"\xff" * 5),
    ("torn", 300, b"\xff" * 300 + bytes(3796), b"\xa5" * 8),
]


@pytest.mark.parametrize(("kind", "number", "erased", "programmed"), CUTS)
def test_a_cut_leaves(kind, number, erased, programmed, chip):
    chip.poke(0, bytes(4096))
    chip.fault(1, kind, number)
    chip.program(4096, b"\xff")
    with pytest.raises(PowerCut):
        chip.erase(0)
    assert chip.read(0, 4096) == erased
    chip.fault(0, kind, number)
    with pytest.raises(PowerCut):
        chip.program(8192, b"\xa5" * 8)
    assert chip.read(8192, 8) == programmed
    assert chip.operations == 3  # a cut one counts


def test_a_random_cut_does_some_of_the_due_bits_by_its_seed(chip):
    results = set()
    for seed in (1, 2, 1):
        chip.poke(0, ERASED)
        chip.poke(4096, bytes(4096))
        chip.fault(0, "random", seed)
        with pytest.raises(PowerCut):
            chip.program(0, b"\x0f" * 64)
        chip.fault(0, "random", seed)
        with pytest.raises(PowerCut):
            chip.erase(4096)
        torn, half = bytes(chip.read(0, 64)), bytes(chip.read(4096, 4096))
        assert all(byte & 0x0F == 0x0F for byte in torn)
        assert torn not in (b"\xff" * 64, b"\x0f" * 64)
        assert half not in (bytes(4096), ERASED)
        results.add((torn, half))
    assert len(results) == 2


def test_errors_and_silence(chip):
    chip.fault(0, "error")
    chip.fault(1, "error", 24578)
    chip.fault(2, "skip")
    with pytest.raises(OSError, match="-24577"):
        chip.program(0, b"\0")
    with pytest.raises(OSError, match="-24578"):
        chip.program(0, b"\0")
    chip.program(0, b"\0")
    assert chip.read(0, 1) == b"\xff"
    chip.program(0, b"\0")
    assert chip.read(0, 1) == b"\0"


def test_a_disarmed_fault_does_not_fire(chip):
    chip.fault(0, "before")
    chip.disarm()
    chip.erase(0)
    assert chip.operations == 1


@pytest.mark.parametrize("text", ["1", "x:before", "1:soon", "1:torn", "1:after:x", "1:torn:2:3"])
def test_a_malformed_fault_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        Flash(None, size=4096, faults=text)


def test_counters_survive_and_faults_count_on(path):
    chip = Flash(path)
    chip.erase(0)
    chip.close()
    chip = Flash(path, faults="2:before")
    chip.erase(0)
    with pytest.raises(PowerCut):
        chip.erase(0)
    chip.close()
    expected = {"operations": 3, "erases": 3, "violations": 0, "aborts": 0}
    assert read_counters(path) == expected
    chip = Flash(path, faults="2:before")  # fired, so it does not fire again
    chip.erase(0)
    chip.close()


def test_the_table_is_read_from_flash(path):
    chip = Flash(path)
    assert chip.table == list(layout.OTA_4MIB)
    assert chip.find(0, 0x11)[0] == "ota_1"
    assert chip.find(1, 0xFF, "vfs")[2] == 0x81
    assert chip.find(0, 0) is None
    chip.close()


def test_what_does_not_fit_is_not_flashed(tmp_path):
    with pytest.raises(ValueError, match="do not fit"):
        layout.make_flash(tmp_path / "f", {"nvs": bytes(0x4001)})
    with pytest.raises(ValueError, match="no partition"):
        layout.make_flash(tmp_path / "f", {"ota_7": b""})


def test_small_blocks_keep_what_lies_around(path):
    chip = Flash(path)
    device = type("Partition", (Partition,), {"chip": Chip(chip, "ota_0")})
    chip.poke(OTA_1, bytes(range(256)) * 16)
    small = device("ota_1", 512)
    assert (small.ioctl(4, 0), small.ioctl(5, 0), small.ioctl(6, 0)) == (0x180000 // 512, 512, -22)
    small.writeblocks(1, b"\x77" * 512)
    assert chip.read(OTA_1, 4096) == bytes(range(256)) * 2 + b"\x77" * 512 + bytes(range(256)) * 12
    chip.close()


def test_a_cut_in_the_boot_loader_leaves_the_other_entry(path):
    """Each change of state erases and writes in place (bootloader_utility.c)."""
    chip = Flash(path)
    assert bootloader.boot(chip) == "ota_0"
    chip.poke(OTA_1, GOOD)
    device = type("Partition", (Partition,), {"chip": Chip(chip, "ota_0")})
    device("ota_1").set_boot()
    chip.fault(0, "after")  # NEW erased, PENDING_VERIFY not yet written
    with pytest.raises(PowerCut):
        bootloader.boot(chip)
    assert bootloader.boot(chip) == "ota_0"
    chip.close()


# In a device process

BLOCKS = """
import esp32
p = esp32.Partition(esp32.Partition.RUNNING).get_next_update()
block, back = bytearray(b"ota!" * 1024), bytearray(4096)
for n in (0, 1, 383):
    p.ioctl(6, n)
    p.writeblocks(n, block, 0)
    p.readblocks(n, back)
    assert back == block
esp32.NVS("ota").set_i32("x", -7)
for call in (p.set_boot, lambda: p.ioctl(6, 384), lambda: p.writeblocks(384, block)):
    try:
        call()
    except OSError as e:
        print(e.args[0])
print([q.info()[4] for q in esp32.Partition.find(esp32.Partition.TYPE_APP)])
"""


def test_a_device_process_works_on_the_same_flash(path):
    done = run(path, BLOCKS)
    assert done.stdout == "-5379\n-260\n-260\n['ota_0', 'ota_1']\n", done.stderr
    assert read_rtc(path) == {"running": "ota_0"}
    again = run(path, 'import esp32; print(esp32.NVS("ota").get_i32("x"))')
    assert again.stdout == "-7\n", again.stderr
    chip = Flash(path)
    assert chip.read(OTA_1 + 383 * 4096, 4096) == b"ota!" * 1024
    assert chip.violations == 0
    assert chip.erases == 4  # otadata by the boot loader, 3 blocks
    chip.close()


def test_a_write_to_the_running_slot_restarts_the_chip(path):
    done = run(path, "import esp32; esp32.Partition('ota_0').ioctl(6, 0); print('on')")
    assert (done.returncode, done.stdout) == (-9, "")
    assert read_counters(path)["aborts"] == 1
    assert read_rtc(path) == {"cause": 2}
    chip = Flash(path)
    assert chip.read(0x10000, len(GOOD)) == GOOD
    chip.close()


def test_a_power_cut_ends_the_process_and_tears_as_on_cpython(path):
    script = "import esp32; esp32.Partition('ota_1').writeblocks(0, bytes(4096), 0)"
    done = run(path, script, fault="5:random:42")  # 0 and 1: the boot loader's otadata
    assert done.returncode == -9
    assert read_rtc(path) == {}
    assert read_counters(path)["operations"] == 6
    chip = Flash(None, size=4096, faults="3:random:42")
    with pytest.raises(PowerCut):
        chip.program(0, bytes(4096))
    torn = Flash(path)
    assert torn.read(OTA_1, 4096) == chip.read(0, 4096)
    torn.close()


def test_without_a_bootable_image_the_import_ends_the_program(tmp_path):
    path = tmp_path / "flash.bin"
    layout.make_flash(path)
    done = run(str(path), "import esp32; print('on')")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"no bootable image in {path}\n"
