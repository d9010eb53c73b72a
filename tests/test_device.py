"""
The simulated ESP32 as a whole: restarts, watchdog, second slot, rollback, power cut, network.
"""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tools.device import cli
from tools.device.device import Device
from tools.device.layout import GENERATIONS
from tools.device.rom import PORT
from tools.image.build import build

REPL = "^>>>"

# The application in most tests: it tells who runs, then obeys the file `order`.
APPLICATION = """
import machine, os
from esp32 import Partition
import firmware
label = Partition(Partition.RUNNING).info()[4]
print("runs", firmware.VERSION, label, "cause", machine.reset_cause())
try:
    with open("order") as f:
        order = f.read()
    os.remove("order")
except OSError:
    order = ""
exec(order)
"""

SWITCH = """
Partition("ota_1").set_boot()
machine.reset()
"""


def image_of(folder: Path, version: str, app: str = APPLICATION) -> Path:
    modules = {"main": app, "firmware": f'VERSION = "{version}"\n'}
    return build(folder / f"{version}.bin", modules)


@pytest.fixture
def device(tmp_path):
    """Version 1 in ota_0, version 2 in ota_1, powered off."""
    with Device(tmp_path / "lamp").create(image_of(tmp_path, "1")) as made:
        made.load("ota_1", image_of(tmp_path, "2"))
        yield made
        made.stop()
        assert made.counters["violations"] == 0


def test_frozen_main_runs_after_boot_and_sees_its_names(device):
    device.put("boot.py", "SETTING = 5\nprint('boot', __name__)")
    device.put("main.py", "print('the file')")
    device.put("order", "print('setting', SETTING, __name__)")
    device.start()
    assert device.wait("^boot|^runs").string == "boot __main__"
    assert device.wait("^runs").string == "runs 1 ota_0 cause 1"
    assert device.wait("^setting").string == "setting 5 __main__"
    device.wait(REPL)
    assert "the file" not in device.console
    assert (device.state, device.running) == ("on", "ota_0")
    assert list(device.boots) == [("ota_0", 1)]


def test_search_path_is_that_of_a_board(device):
    device.put("order", "import sys\nprint('path', ' '.join(sys.path))")
    path = device.start().wait("^path (.*)").group(1).split(" ")
    assert path[0] == ""
    assert path[1].endswith("/.frozen")
    assert path[2:4] == [".frozen", str(device.fs / "lib")]


def test_file_hides_a_frozen_module_but_lib_does_not(device):
    device.put("lib/firmware.py", "VERSION = 'lib'")
    device.start().wait("^runs 1 ")
    device.put("firmware.py", "VERSION = 'file'")
    device.reset()
    device.wait("^runs file ")


def test_uncompiled_port_works_too(tmp_path):
    with Device(tmp_path / "d", port=PORT).create(image_of(tmp_path, "1")) as device:
        assert device.start().wait("^runs").string == "runs 1 ota_0 cause 1"


@pytest.mark.parametrize(
    ("order", "cause"),
    [
        ("machine.reset()", 2),
        ("machine.soft_reset()", 5),
        ("raise SystemExit", 5),
        ("machine.deepsleep(100)", 4),
        ("machine.WDT(timeout=100)\nwhile True: pass", 3),
        ("import os; os.system('kill -9 $PPID')", 2),
    ],
)
def test_restart_tells_its_cause(device, order, cause):
    device.put("order", order)
    device.start().wait("^runs 1 ota_0 cause 1$")
    device.wait(f"^runs 1 ota_0 cause {cause}$")
    assert list(device.boots) == [("ota_0", 1), ("ota_0", cause)]


def test_reset_button_wakes_from_deep_sleep(device):
    device.put("order", "machine.deepsleep()")
    device.start().wait("^runs")
    device.wait(lambda: device.state == "asleep")
    device.reset()
    device.wait("^runs 1 ota_0 cause 2$")


def test_soft_reset_and_sleep_leave_the_choice_of_the_slot_alone(device):
    device.put("order", "Partition('ota_1').set_boot()\nmachine.soft_reset()")
    device.start().wait("^runs 1 ota_0 cause 5$")
    device.reset()
    device.wait("^runs 2 ota_1 cause 2$")


@pytest.mark.parametrize("generation", GENERATIONS)
def test_other_slot_runs_other_code_and_is_rolled_back_unconfirmed(device, generation):
    device.generation = generation
    device.put("order", SWITCH)
    device.start().wait("^runs 1 ota_0 cause 1$")
    device.wait("^runs 2 ota_1 cause 2$")
    device.reset()
    device.wait("^runs 1 ota_0 cause 2$")
    assert [label for label, _ in device.boots] == ["ota_0", "ota_1", "ota_0"]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_confirmed_slot_stays(device, tmp_path, generation):
    device.generation = generation
    app = APPLICATION + "Partition.mark_app_valid_cancel_rollback()\nprint('confirmed')"
    device.load("ota_1", image_of(tmp_path, "3", app))
    device.put("order", SWITCH)
    device.start().wait("^confirmed")
    device.power_cut()
    device.start().wait("^runs 3 ota_1 cause 1$")


@pytest.mark.parametrize(
    "app",
    ["while True: pass", "import missing", "raise SyntaxError", b"M\x05\x00\x1f", "1 / 0"],
    ids=["hang", "import", "syntax", "mpy", "error"],
)
def test_watchdog_of_boot_py_gets_a_broken_image_back(device, tmp_path, app):
    device.put("boot.py", "import machine\nmachine.WDT(timeout=500)")
    device.put("order", "machine.WDT(timeout=1000000)\n" + SWITCH)
    device.load("ota_1", image_of(tmp_path, "broken", app))
    device.start().wait("^runs 1 ota_0 cause 1$")
    device.wait("ota_1 starts, cause 2$")
    device.put("order", "machine.WDT(timeout=1000000)")
    device.wait("^runs 1 ota_0 cause 3$")


def test_error_in_boot_py_waits_at_the_repl_without_main(device):
    device.put("boot.py", "1 / 0")
    device.start().wait("ZeroDivisionError")
    device.wait(REPL)
    assert not any(line.startswith("runs") for line in device.console)
    assert device.state == "on"


def test_watchdog_that_is_fed_or_set_long_does_not_bite(device):
    device.put(
        "order",
        "import time\nw = machine.WDT(timeout=400)\n"
        "for i in range(8): time.sleep_ms(100); w.feed()\n"
        "machine.WDT(timeout=2**31 - 1)\ntime.sleep_ms(600)\nprint('alive')",
    )
    device.start().wait("^alive")
    assert list(device.boots) == [("ota_0", 1)]


def test_hard_reset_stops_the_watchdog_soft_reset_does_not(device):
    device.put("boot.py", "import machine, time\nCAUSE = machine.reset_cause()")
    device.put(
        "order",
        "with open('order', 'w') as f: f.write(order)\n"  # for the next start too
        "if CAUSE == 1: machine.WDT(timeout=300); machine.reset()\n"
        "if CAUSE == 2: time.sleep_ms(600); machine.WDT(timeout=300); machine.soft_reset()\n"
        "if CAUSE == 5: time.sleep_ms(60000)\n"
        "print('end')",
    )
    device.start().wait("^end")
    assert [cause for _, cause in device.boots] == [1, 2, 5, 3]


def test_deep_sleep_stops_the_watchdog(device):
    device.put("boot.py", "import machine, time\nCAUSE = machine.reset_cause()")
    device.put(
        "order",
        "with open('order', 'w') as f: f.write(order)\n"  # for the next start too
        "if CAUSE == 1: machine.WDT(timeout=300); machine.deepsleep(600)\n"
        "time.sleep_ms(300)\n"
        "print('end')",
    )
    device.start().wait("^end")
    assert [cause for _, cause in device.boots] == [1, 4]


def test_watchdog_refuses_a_wrong_timeout(device):
    device.put("order", "machine.WDT(timeout=2**31)")
    device.start().wait("ValueError: WDT timeout")


def test_power_cut_forgets_the_clock_and_the_cause(device):
    device.put("boot.py", "import time, ntptime, network\nprint('year', time.gmtime()[0])")
    on = "w = network.WLAN(); w.active(True); w.connect('a', 'b'); ntptime.settime(); print('set')"
    device.put("order", on)
    device.start().wait("^year 2000")
    device.wait("^set")
    device.reset()
    device.wait(f"^year {time.gmtime().tm_year}")
    device.power_cut()
    assert (device.state, device.running) == ("off", None)
    device.start().wait("^year 2000")
    device.wait("^runs 1 ota_0 cause 1$")


def test_no_bootable_image_is_a_state(tmp_path):
    with Device(tmp_path / "empty").create(b"") as device:
        device.start().wait("no bootable image")
        device.wait(lambda: device.state == "no boot")
        assert list(device.boots) == [(None, 1)]
        device.reset()
        device.wait("no bootable image")


def test_boot_loop_is_slowed_down(tmp_path):
    image = image_of(tmp_path, "1", "import machine; machine.reset()")
    with Device(tmp_path / "loop", starts_per_minute=5).create(image) as device:
        device.start().wait("5 starts in a minute")
        assert len(device.boots) == 5


def test_power_cut_by_a_fault_of_the_flash(device):
    device.fault = "0:before"
    device.start().wait("^runs 1 ota_0 cause 1$")
    # The first operation is the boot loader's: it writes otadata, once more after the cut.
    assert device.counters["operations"] == 3


def test_crash_of_a_device_at_a_fault_is_a_power_on(device):
    device.fault = "3:before"  # 0 and 1: the boot loader's; 2: erase by set_boot
    device.put("order", SWITCH)
    device.start().wait("^runs 1 ota_0 cause 1$")
    device.wait("^runs 1 ota_0 cause 1$")
    assert list(device.boots) == [("ota_0", 1), ("ota_0", 1)]


def test_slot_bytes_are_those_of_the_image(device, tmp_path):
    data = (tmp_path / "2.bin").read_bytes()
    assert device.slot_bytes("ota_1", len(data)) == data


def test_many_devices_run_at_once(tmp_path):
    image = image_of(tmp_path, "1")
    devices = [Device(tmp_path / str(number)).create(image) for number in range(6)]
    try:
        for device in devices:
            device.start()
        for device in devices:
            device.wait("^runs 1 ota_0 cause 1$")
    finally:
        for device in devices:
            device.stop()
    assert {device.state for device in devices} == {"off"}


def test_wait_names_what_did_not_come(device):
    device.start().wait(REPL)
    with pytest.raises(TimeoutError, match="(?s)no 'never' in .* s.*runs 1"):
        device.wait("never", timeout=0.1)


def test_ticks_wrap_as_on_the_chip(device):
    device.env["OTA_SIM_TICKS"] = str(2**30 - 20)
    device.put(
        "order",
        "import time\na = 2**30 - 20\ntime.sleep_ms(50)\nb = time.ticks_ms()\n"
        "print('ticks', b < 2**29, 50 <= time.ticks_diff(b, a) < 20000)",
    )
    assert device.start().wait("^ticks").string == "ticks True True"


def test_asyncio_keeps_time(device):
    device.env["OTA_SIM_TICKS"] = str(2**30 - 20)
    device.put(
        "order",
        "import asyncio\nasync def nap(ms):\n    await asyncio.sleep_ms(ms)\n"
        "async def work():\n    await nap(50)\n    await asyncio.gather(nap(20), nap(0))\n"
        "    print('slept')\nasyncio.run(work())",
    )
    device.start().wait("^slept")


def test_frozen_clock_needs_no_real_time(device):
    device.put(
        "order",
        "import time, simulator\nsimulator.clock(0)\na = time.ticks_ms()\ntime.sleep(100000)\n"
        "simulator.advance(5)\nprint('slept', time.ticks_diff(time.ticks_ms(), a))",
    )
    assert device.start().wait("^slept").string == "slept 100000005"


def test_wifi_is_what_the_supervisor_says(device):
    device.link(True, ssid="home", key="secret")
    device.put(
        "order",
        "import network, time\nw = network.WLAN(network.STA_IF)\nw.active(True)\n"
        "w.connect('home', 'wrong'); print('wrong key', w.status())\n"
        "w.connect('else', 'secret'); print('other name', w.status())\n"
        "w.connect('home', 'secret'); print('right', w.status(), w.isconnected())\n"
        "while w.isconnected(): time.sleep_ms(20)\n"
        "print('lost', w.status(), w.ifconfig()[0])\n"
        "while not w.isconnected(): time.sleep_ms(20)\nprint('again')",
    )
    device.start().wait("^wrong key 202")
    device.wait("^other name 201")
    device.wait("^right 1010 True")
    device.link(False)
    device.wait("^lost 201 0.0.0.0")
    device.link(True)
    device.wait("^again")


def test_commands_make_and_show_a_device(tmp_path, capsys):
    image = str(image_of(tmp_path, "1"))
    folder = str(tmp_path / "board")
    boot = tmp_path / "boot.py"
    boot.write_text("pass")
    assert cli.main(["create", folder, image, "--put", str(boot)]) == 0
    assert "ota_0" in capsys.readouterr().out
    assert Path(folder, "fs", "boot.py").read_text() == "pass"
    assert cli.main(["info", folder]) == 0
    assert "frozen: 2 modules" in capsys.readouterr().out
    flash = Path(folder, "flash.bin").read_bytes()
    assert cli.main(["create", folder, image]) == 1  # what is there is not wiped by a slip
    assert "--force" in capsys.readouterr().err
    assert Path(folder, "flash.bin").read_bytes() == flash
    assert not Path(folder, "fs", "main.py").exists()
    assert cli.main(["create", folder, image, "--force"]) == 0
    assert not Path(folder, "fs", "boot.py").exists()
    assert cli.main(["info", str(tmp_path / "nowhere")]) == 1
    assert cli.main(["run", str(tmp_path / "nowhere")]) == 1


def bare(device: Device, code: str, **env) -> subprocess.CompletedProcess:
    """The interpreter alone, by MICROPYPATH and the flash's name: no supervisor."""
    environment = {
        "PATH": os.environ["PATH"],
        "MICROPYPATH": f".frozen:{PORT}",
        "OTA_SIM_FLASH": str(device.flash_path),
        **env,
    }
    return subprocess.run(
        [device.micropython, "-X", "heapsize=160k", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_without_a_supervisor_the_watchdog_bites_a_hang(device):
    done = bare(device, "import machine, esp32\nmachine.WDT(timeout=200)\nwhile True: pass")
    assert done.returncode == -9
    tell = "import machine, esp32; print(machine.reset_cause(), esp32.Partition(1).info()[4])"
    assert bare(device, tell).stdout == "3 ota_0\n"


def test_without_a_supervisor_the_next_process_runs_the_boot_loader(device):
    code = "import machine, esp32\nesp32.Partition('ota_1').set_boot()\nmachine.reset()"
    assert bare(device, code).returncode == -9
    tell = "import machine, esp32; print(machine.reset_cause(), esp32.Partition(1).info()[4])"
    assert bare(device, tell).stdout == "2 ota_1\n"


def test_simulator_restarts_in_the_process(device):
    code = (
        "import esp32, simulator\nesp32.Partition('ota_1').set_boot()\n"
        "before = simulator.counters()\n"
        "print(simulator.restart(), esp32.Partition(1).info()[4], simulator.restart())\n"
        "print(simulator.counters()['operations'] > before['operations'])"
    )
    assert bare(device, code).stdout == "ota_1 ota_1 ota_0\nTrue\n"
