"""
Tests of boot.py: the guard of an image on trial, the settings as they are shipped, the network.

boot.py beside this file is a link to it; importing it is the start of a device. Source of the
expected values: ESP-IDF bootloader_common_loader.c (which record counts); docs/hardware.md,
"Starting up".
"""

import sys
import unittest

import bootrecords
import images
from bootrecords import ABORTED, BLANK, INVALID, NEW, PENDING_VERIFY, UNDEFINED, VALID

import boot

_AT_START = tuple(sys.modules)  # what the start of a device has loaded


class Restart(Exception):
    """machine.reset() was called: on a device it never returns."""


class Machine:
    """The module `machine`: notes each watchdog's time-out. cause: of the reset."""

    PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = range(1, 6)

    def __init__(self):
        self.timeouts = []
        self.cause = self.HARD_RESET

    def WDT(self, timeout):
        self.timeouts.append(timeout)

    def reset_cause(self):
        return self.cause

    def reset(self):
        raise Restart


class Wlan:
    """The modules `network` and `time`, and the interface: up after so many looks."""

    STA_IF = 0

    def __init__(self, looks):
        self.calls = []
        self.slept = 0
        self._looks = looks

    def WLAN(self, interface):
        self.calls.append(("WLAN", interface))
        return self

    def active(self, on):
        self.calls.append(("active", on))

    def connect(self, ssid, password):
        if not isinstance(ssid, str) or not isinstance(password, str):
            raise TypeError
        if password == "refused":
            raise OSError("Wifi Internal State Error")
        self.calls.append(("connect", ssid, password))

    def isconnected(self):
        self._looks -= 1
        return self._looks < 0

    def sleep_ms(self, ms):
        self.slept += ms


class BootCase(unittest.TestCase):
    def setUp(self):
        self._kept = {name: sys.modules.get(name) for name in ("machine", "network", "time")}
        self._records = bootrecords.read()
        self.machine = sys.modules["machine"] = Machine()

    def tearDown(self):
        for name, module in self._kept.items():
            sys.modules.pop(name, None)
            if module:
                sys.modules[name] = module
        bootrecords.write(*self._records)


class GuardTests(BootCase):
    def guarded(self, *records):
        # The time-outs of the watchdogs that the guard starts over these records.
        bootrecords.write(*records)
        self.machine.timeouts.clear()
        boot.guard()
        return self.machine.timeouts

    def test_image_on_trial_has_a_watchdog(self):
        for records in (
            ((1, PENDING_VERIFY), BLANK),
            (BLANK, (1, PENDING_VERIFY)),
            ((2, VALID), (3, PENDING_VERIFY)),
            ((3, PENDING_VERIFY), (2, VALID)),
            ((0x80000001, PENDING_VERIFY), (0x80000000, VALID)),
            # The newer one does not count.
            ((1, PENDING_VERIFY), (2, ABORTED)),
            ((1, PENDING_VERIFY), (2, INVALID)),
            ((1, PENDING_VERIFY), bootrecords.entry(2, VALID, crc=0x4743989A)),
            # A tie goes to the first.
            ((1, PENDING_VERIFY), (1, VALID)),
        ):
            self.assertEqual(self.guarded(*records), [120000], records)

    def test_trial_goes_on_over_no_soft_reset_and_no_deep_sleep(self):
        # The boot loader does not run then: it would never end.
        for cause in (Machine.SOFT_RESET, Machine.DEEPSLEEP_RESET):
            self.machine.cause = cause
            with self.assertRaises(Restart):
                self.guarded((2, VALID), (3, PENDING_VERIFY))
            self.assertEqual(self.guarded((1, VALID), BLANK), [])
        for cause in (Machine.PWRON_RESET, Machine.WDT_RESET):
            self.machine.cause = cause
            self.assertEqual(self.guarded((2, VALID), (3, PENDING_VERIFY)), [120000])

    def test_no_trial_no_watchdog(self):
        for records in (
            (BLANK, BLANK),
            (bytes(32), bytes(32)),
            ((1, VALID), BLANK),
            ((1, NEW), BLANK),
            ((1, UNDEFINED), BLANK),
            ((1, VALID), (2, ABORTED)),
            ((1, ABORTED), (2, INVALID)),
            ((2, VALID), (3, VALID)),
            # Of the other image, which the boot loader refused: nobody would feed it.
            (BLANK, (2, PENDING_VERIFY)),
            ((1, VALID), (2, PENDING_VERIFY)),
            # An older one does not count.
            ((3, VALID), (2, PENDING_VERIFY)),
            ((1, VALID), (1, PENDING_VERIFY)),
            # Nor does one whose number or checksum is torn.
            (bootrecords.entry(1, PENDING_VERIFY, crc=0), BLANK),
            (bootrecords.entry(0xFFFFFFFF, PENDING_VERIFY, crc=0xFFFFFFFF), BLANK),
        ):
            self.assertEqual(self.guarded(*records), [], records)

    def test_after_the_boot_loader_itself(self):
        try:
            import simulator
        except ImportError:
            raise unittest.SkipTest("no simulator: the boot loader cannot be run")
        bootrecords.write((1, VALID), BLANK)
        other = bootrecords.slot(bootrecords.OTHER)
        block = bytearray(b"\xff" * 4096)
        image = images.application()
        block[: len(image)] = image
        other.writeblocks(0, block)
        other.set_boot()
        try:
            self.assertEqual(simulator.restart(), "ota_1")
            boot.guard()
            self.assertEqual(self.machine.timeouts, [120000])
            self.assertEqual(simulator.restart(), "ota_0")  # not confirmed: rolled back
            boot.guard()
            self.assertEqual(self.machine.timeouts, [120000])
        finally:
            bootrecords.write(*self._records)
            simulator.restart()

    def test_start_loads_nothing_that_an_upgrade_could_break(self):
        for name in ("ota", "ota.slot", "main", "firmware"):
            self.assertFalse(name in _AT_START, name)


class SettingsTests(BootCase):
    def test_settings_are_there_to_be_filled_in(self):
        for name in (
            "WIFI_SSID",
            "WIFI_PASSWORD",
            "MQTT_SERVER",
            "PRODUCT_KEY",
            "IDENTIFIER",
            "DEVICE_SECRET",
        ):
            self.assertEqual(getattr(boot, name), "", name)

    def test_port_is_that_of_mqtt(self):
        self.assertEqual(boot.MQTT_PORT, 1883)


class ConnectTests(BootCase):
    def connect(self, looks):
        wlan = Wlan(looks)
        sys.modules["network"] = sys.modules["time"] = wlan
        boot.WIFI_SSID, boot.WIFI_PASSWORD = "net", "secret"
        try:
            boot.connect()
        finally:
            boot.WIFI_SSID = boot.WIFI_PASSWORD = ""
        return wlan

    def test_connects_with_the_settings(self):
        wlan = self.connect(3)
        self.assertEqual(wlan.calls, [("WLAN", 0), ("active", True), ("connect", "net", "secret")])

    def test_goes_on_as_soon_as_it_is_connected(self):
        self.assertEqual(self.connect(1).slept, 0)
        self.assertEqual(self.connect(4).slept, 300)

    def test_connection_of_before_a_soft_reset_is_kept(self):
        self.assertEqual(self.connect(0).calls, [("WLAN", 0), ("active", True)])

    def test_goes_on_without_wifi_long_before_the_watchdog(self):
        self.assertEqual(self.connect(1 << 20).slept, 20000)


class StartTests(BootCase):
    def tearDown(self):
        super().tearDown()
        boot.WIFI_SSID = boot.WIFI_PASSWORD = ""

    def start(self, ssid, password):
        # Starts the network with these settings (None: missing). Returns what was asked of it.
        wlan = Wlan(1)
        sys.modules["network"] = sys.modules["time"] = wlan
        boot.WIFI_SSID, boot.WIFI_PASSWORD = ssid, password
        if ssid is None:
            del boot.WIFI_SSID
        if password is None:
            del boot.WIFI_PASSWORD
        boot.start()
        return wlan.calls

    def test_no_name_no_network(self):
        self.assertEqual(self.start("", ""), [])

    def test_name_of_a_network(self):
        self.assertEqual(self.start("net", "secret")[-1], ("connect", "net", "secret"))

    def test_wrong_settings_do_not_stop_the_start(self):
        # As `network` answers what is no text; main.py says which setting it is.
        for ssid, password in ((None, ""), ("net", None), ("net", 12345678), (5, "")):
            calls = self.start(ssid, password)
            self.assertFalse(any(call[0] == "connect" for call in calls), (ssid, password))

    def test_radio_that_refuses_does_not_stop_the_start(self):
        self.assertEqual(self.start("net", "refused")[-1], ("active", True))
