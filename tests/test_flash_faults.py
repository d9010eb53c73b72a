"""Each fault of the simulated flash, on CPython and in a device process."""

import hashlib
from pathlib import Path

import pytest

from tests.test_flash_model import run
from tools.device.device import Device
from tools.device.port.flash import Flash, PowerCut, read_counters

ERASED = b"\xff" * 4096
PAGE, SECTOR = 0x1010, 0x2000  # where the tests program, where they erase
# The 8th and the 4095th byte of the sector are not blank: bits 0 and 7 are due in an erase.
USED = b"\xff" * 7 + b"\xfe" + b"\xff" * 4086 + b"\x7f" + b"\xff"


@pytest.fixture
def chip():
    chip = Flash(None, size=0x10000)
    chip.poke(SECTOR, USED)
    return chip


def new_file(folder):
    folder.mkdir()
    path = folder / "flash.bin"
    path.write_bytes(b"\xff" * SECTOR + USED + ERASED * 4)
    return str(path)


@pytest.fixture
def path(tmp_path):
    return new_file(tmp_path / "chip")


def beside(path, what):
    return Path(f"{path}.{what}").read_text(encoding="ascii")


# (kind, number, what programming 4 bytes of 0x0F leaves, the two used bytes after an erase)
CUTS = [
    ("tail", 0, "0f0f0f0f", "ffff"),
    ("tail", 1, "ff0f0f0f", "ffff"),
    ("tail", 8, "ffffffff", "feff"),
    ("tail", 4095, "ffffffff", "fe7f"),
    ("only", 0, "efffffff", "ff7f"),
    ("only", 5, "ffdfffff", "feff"),
    ("only", 16, "efffffff", "ff7f"),
    ("but", 0, "1f0f0f0f", "feff"),
    ("but", 5, "0f2f0f0f", "ff7f"),
    ("but", 31, "0f0f0f8f", "ff7f"),
]


@pytest.mark.parametrize(("kind", "number", "programmed", "erased"), CUTS)
def test_a_cut_does_a_part(kind, number, programmed, erased, chip):
    chip.fault(0, kind, number)
    with pytest.raises(PowerCut):
        chip.program(PAGE, b"\x0f" * 4)
    assert chip.read(PAGE - 1, 6).hex() == "ff" + programmed + "ff"
    chip.fault(0, kind, number)
    with pytest.raises(PowerCut):
        chip.erase(SECTOR)
    sector = chip.read(SECTOR, 4096)
    assert sector[7:8].hex() + sector[4094:4095].hex() == erased
    assert sector[:7] + sector[8:4094] + sector[4095:] == b"\xff" * 4094
    assert (chip.operations, chip.erases, chip.violations) == (2, 1, 0)


@pytest.mark.parametrize("kind", ["only", "but"])
def test_a_cut_where_nothing_is_due_changes_nothing(kind, chip):
    chip.erase(SECTOR)
    chip.fault(0, kind, 3)
    with pytest.raises(PowerCut):
        chip.erase(SECTOR)
    assert chip.read(SECTOR, 4096) == ERASED


def test_the_random_bits_of_a_seed_stay_the_same(chip):
    """So that a case can be told by its seed. Noted from the first version of the model."""
    chip.fault(0, "random", 7)
    with pytest.raises(PowerCut):
        chip.program(PAGE, b"\x0f" * 8)
    assert chip.read(PAGE, 8).hex() == "0f7f2f9fef2f1fbf"
    chip.poke(SECTOR, bytes(4096))
    chip.fault(0, "random", 7)
    with pytest.raises(PowerCut):
        chip.erase(SECTOR)
    digest = hashlib.sha256(chip.read(SECTOR, 4096)).hexdigest()
    assert digest == "b40fe7175ad67bd11393aea7235a5c3070dc23143a10fd26a4fd5d98079ba7b6"


@pytest.mark.parametrize("operation", ["erase", "program"])
def test_a_spoilt_sector_is_noise_and_its_neighbours_are_not(operation, chip):
    found = []
    for seed in (1, 2, 1):
        chip.fault(0, "spoil", seed)
        with pytest.raises(PowerCut):
            chip.erase(SECTOR) if operation == "erase" else chip.program(SECTOR + 700, b"x")
        found.append(bytes(chip.read(SECTOR, 4096)))
        assert chip.read(SECTOR - 4096, 4096) == chip.read(SECTOR + 4096, 4096) == ERASED
    assert found[0] == found[2] != found[1]
    pages = {found[0][at : at + 256] for at in range(0, 4096, 256)}
    assert len(pages) == 16
    assert all(len(set(page)) > 100 for page in pages)


@pytest.mark.parametrize(
    ("kind", "number", "violations"),
    [
        ("after", None, 3),
        ("torn", 1, 1),
        ("tail", 1, 2),
        ("random", 1, 3),
        ("only", 1, 3),
        ("but", 1, 3),
        ("spoil", 1, 3),
        ("before", None, 0),
        ("skip", None, 0),
        ("error", None, 0),
        ("flip", 1, 3),
        ("unread", None, 3),
        ("stuck", 1, 3),
    ],
)
def test_violations_are_counted_in_what_is_done(kind, number, violations, chip):
    chip.poke(PAGE, bytes(4))
    chip.fault(0, kind, number)
    try:
        chip.program(PAGE, b"\x01\x80\x00\xff")
    except (OSError, PowerCut):
        pass
    assert chip.violations == violations


@pytest.mark.parametrize("kind", ["random", "only", "but", "stuck"])
def test_an_erase_is_no_violation(kind, chip):
    chip.fault(0, kind, 1)
    try:
        chip.erase(SECTOR)
    except PowerCut:
        pass
    assert chip.violations == 0


def test_a_bit_stuck_at_0_stays_0_for_ever(path):
    chip = Flash(path, faults="0:stuck:9")
    chip.erase(SECTOR)
    assert beside(path, "stuck") == f"{SECTOR + 1} 1 0\n"
    for _ in range(2):
        assert chip.read(SECTOR, 4096) == b"\xff\xfd" + ERASED[2:]
        chip.erase(SECTOR)
        chip.disarm()
    chip.close()
    chip = Flash(path)
    chip.erase(SECTOR)
    chip.program(SECTOR, b"\xff\xff\x0f")
    assert chip.read(SECTOR, 4) == b"\xff\xfd\x0f\xff"
    assert chip.violations == 0  # the bit is not to blame on who programs it
    chip.program(SECTOR, b"\xff\xff\xff")
    assert chip.violations == 1
    chip.poke(SECTOR, ERASED)
    assert chip.read(SECTOR, 2) == b"\xff\xfd"
    chip.close()


def test_a_bit_stuck_at_1_stays_1_for_ever(path):
    chip = Flash(path, faults="0:stuck:4")
    chip.program(PAGE, b"\x00\x00")
    assert chip.read(PAGE, 2) == b"\x10\x00"
    chip.close()
    chip = Flash(path, faults="0:stuck:4")  # fired, so it does not fire again
    chip.program(PAGE, b"\x00")
    assert chip.read(PAGE, 1) == b"\x10"
    chip.erase(PAGE & ~4095)
    chip.fault(0, "but", 0)
    with pytest.raises(PowerCut):
        chip.program(PAGE, b"\x0f")
    assert chip.read(PAGE, 1) == b"\x3f"  # due: 5, 6, 7
    chip.fault(0, "spoil", 1)
    with pytest.raises(PowerCut):
        chip.erase(PAGE & ~4095)
    assert chip.read(PAGE, 1)[0] & 0x10
    assert beside(path, "stuck") == f"{PAGE} 4 1\n"
    chip.close()


def test_a_bit_sticks_once(path):
    chip = Flash(path, faults="0:stuck:0,1:stuck:0,1:stuck:32769")
    chip.erase(SECTOR)
    chip.erase(SECTOR)
    assert chip.read(SECTOR, 1) == b"\xfc"  # 32769: bit 1, of 32768
    assert beside(path, "stuck") == f"{SECTOR} 0 0\n{SECTOR} 1 0\n"
    chip.close()


def test_a_stuck_bit_outlives_a_new_flash_file(path):
    Path(path + ".stuck").write_text(f"{PAGE} 4 1\n{SECTOR} 0 0\n", encoding="ascii")
    Path(path).write_bytes(bytes(SECTOR) + ERASED)
    chip = Flash(path)
    assert (chip.read(PAGE, 2), chip.read(SECTOR, 2)) == (b"\x10\x00", b"\xfe\xff")
    chip.close()


def test_a_bit_is_read_inverted_once(chip):
    chip.fault(0, "flip", 10)
    chip.program(PAGE, b"\x0f\x0f")
    assert chip.read(PAGE, 1) == b"\x0f"  # not that byte
    assert chip.read(PAGE + 2, 1) == b"\xff"
    assert chip.read(PAGE - 4, 8) == b"\xff" * 4 + b"\x0f\x0b" + b"\xff" * 2
    assert chip.read(PAGE, 2) == b"\x0f\x0f"
    chip.fault(0, "flip", 8 * 4095)
    chip.erase(SECTOR)
    assert chip.read(SECTOR + 4000, 96) == b"\xff" * 95 + b"\xfe"
    assert chip.read(SECTOR, 4096) == ERASED


def test_a_place_cannot_be_read_once(chip):
    for number, error in ((None, "-24577"), (263, "-263")):
        chip.fault(0, "unread", number)
        chip.program(PAGE, b"\x0f\x0f")
        assert chip.read(PAGE + 1, 1) == b"\x0f"  # not the first byte
        with pytest.raises(OSError, match=error):
            chip.read(PAGE - 4, 8)
        assert chip.read(PAGE, 2) == b"\x0f\x0f"


def test_what_waits_for_a_read_can_be_disarmed(chip):
    for kind in ("flip", "unread"):
        chip.fault(0, kind, 1)
        chip.program(PAGE, b"\x0f")
    chip.disarm()
    assert chip.read(PAGE, 1) == b"\x0f"


def test_one_operation_can_have_a_cut_and_marks(path):
    chip = Flash(path, faults="1:stuck:0,1:torn:1,1:flip:2,1:before,1:after")
    chip.program(PAGE, b"\x0f")
    with pytest.raises(PowerCut):  # the last of them: after
        chip.program(PAGE, b"\x0f\x0f")
    assert chip.read(PAGE, 2) == b"\x0a\x0f"
    assert chip.read(PAGE, 2) == b"\x0e\x0f"
    chip.close()


def test_the_trace_notes_each_operation_in_each_process(path):
    faults = "2:trace,4:error"
    chip = Flash(path, faults=faults)
    chip.erase(SECTOR)
    chip.program(SECTOR, b"a")
    with pytest.raises(OSError, match="24577"):
        chip.program(SECTOR + 250, bytes(300))  # three pages; the last one fails
    chip.close()
    expected = f"2 P {SECTOR + 250} 6\n3 P {SECTOR + 256} 256\n4 P {SECTOR + 512} 38\n"
    assert beside(path, "trace") == expected
    script = f"from flash import Flash; Flash({path!r}, faults={faults!r}).erase({SECTOR})"
    done = run(path, script)
    assert done.returncode == 0, done.stderr
    chip = Flash(path, faults=faults)
    chip.program(PAGE, b"abc")
    chip.disarm()
    chip.program(PAGE, b"abc")
    chip.close()
    assert beside(path, "trace") == expected + f"5 E {SECTOR}\n6 P {PAGE} 3\n"


def test_a_chip_in_memory_has_no_trace(chip):
    with pytest.raises(ValueError, match="no trace"):
        chip.fault(0, "trace")


KINDS = [
    "before",
    "after",
    "torn:3",
    "tail:3",
    "random:42",
    "only:9",
    "but:9",
    "spoil:42",
    "skip",
    "error",
    "error:7",
    "stuck:9",
    "flip:9",
    "unread",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_of_the_past_does_not_fire(kind, path):
    Flash(path).erase(SECTOR)
    chip = Flash(path, faults=f"0:{kind}")
    chip.program(SECTOR, b"\x0f" * 16)
    assert chip.read(SECTOR, 4096) == b"\x0f" * 16 + ERASED[16:]
    chip.close()
    assert not Path(path + ".stuck").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1", "a fault is K:KIND or K:KIND:NUMBER, not '1'"),
        ("-1:before", "not '-1:before'"),
        ("1:torn:-2", "not '1:torn:-2'"),
        ("1:torn:2:3", "not '1:torn:2:3'"),
        ("1:before,", "not ''"),
        ("1:before,2:soon", "no fault is called 'soon', only after, before, but,"),
        ("1:stuck", "a fault 'stuck' needs a number, K:stuck:NUMBER"),
    ],
)
def test_a_malformed_fault_is_refused_before_the_device_starts(text, why, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=why):
        Device(tmp_path / "lamp", fault=text)
    monkeypatch.setenv("OTA_SIM_FAULT", text)
    with pytest.raises(ValueError, match=why):
        Device(tmp_path / "lamp")


def test_a_new_device_has_no_stuck_bit_and_no_trace(tmp_path):
    device = Device(tmp_path / "lamp").create(b"no image")
    flash = Flash(str(device.flash_path), faults="0:trace,0:stuck:0")
    flash.erase(SECTOR)
    flash.close()
    device.create(b"no image")
    assert sorted(file.name for file in device.folder.iterdir()) == ["flash.bin", "fs"]


# In a device process

STEPS = """
chip = Flash(path, faults=faults)
chip.read(0, 16)
for call in (lambda: chip.program(0x1010, b"\\x0f\\x55" * 40), lambda: chip.erase(0x2000)):
    try:
        call()
    except OSError as error:
        print("error", error.args[0])
for _ in range(2):
    for address in (0x1010, 0x2000):
        try:
            print(sum(i * byte for i, byte in enumerate(chip.read(address, 4096))))
        except OSError as error:
            print("error", error.args[0])
chip.erase(0x2000)
chip.program(0x1010, bytes(80))
chip.close()
"""


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_device_process_does_the_same(kind, k, path, tmp_path, capsys):
    faults = f"0:trace,{k}:{kind}"
    other = new_file(tmp_path / "other")
    done = run(path, f"from flash import Flash\npath, faults = {path!r}, {faults!r}\n{STEPS}")
    try:
        exec(STEPS, {"Flash": Flash, "path": other, "faults": faults})
    except PowerCut:
        assert done.returncode == -9
    else:
        assert done.returncode == 0
    assert (done.stdout, done.stderr) == (capsys.readouterr().out, "")
    assert Path(path).read_bytes() == Path(other).read_bytes()
    assert read_counters(path) == read_counters(other)
    for side in ("stuck", "trace"):
        assert Path(f"{path}.{side}").exists() == Path(f"{other}.{side}").exists()
        if Path(f"{path}.{side}").exists():
            assert beside(path, side) == beside(other, side)


def test_the_faults_are_loaded_when_there_are_some(path):
    script = (
        "import sys\nfrom flash import Flash\n"
        f"chip = Flash({path!r}, faults=%r)\nprint('flashfault' in sys.modules)\nchip.erase(0)"
    )
    for faults, loaded in (("", False), ("5:after", True), ("0:after", False), ("3:skip", True)):
        done = run(path, script % faults)
        assert done.stdout == f"{loaded}\n", done.stderr
    Path(path + ".stuck").write_text("9 0 0\n", encoding="ascii")
    assert run(path, script % "").stdout == "True\n"
