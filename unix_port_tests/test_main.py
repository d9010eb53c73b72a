"""
Tests of main.py: what it says of each setting, and how it connects with them.

main.py beside this file is a link to it. It runs when it is imported; without settings it only
says so. Source of the expected values: docs/protocol.md, "Identity and login".
"""

import os
import sys
import unittest

import main
import ota.protocol
import ota.trust  # noqa: F401 (the package in tests has none)

GOOD = {
    "WIFI_SSID": "net",
    "WIFI_PASSWORD": "wpa-key",
    "MQTT_SERVER": "broker.example",
    "MQTT_PORT": 1884,
    "PRODUCT_KEY": "k",
    "IDENTIFIER": "dev-1",
    "DEVICE_SECRET": "hush",
}
NEEDED = ("WIFI_SSID", "MQTT_SERVER", "PRODUCT_KEY", "IDENTIFIER", "DEVICE_SECRET")
TEXTS = NEEDED + ("WIFI_PASSWORD",)


class Stop(Exception):
    """Ends the loop that never ends."""


class Ota:
    """The package `ota`: notes what it is called with."""

    version = "1.0.0"

    def __init__(self):
        self.calls = []

    def Link(self, *arguments, **named):
        self.calls.append((arguments, named))
        return "link"

    def init(self, *arguments, **named):
        self.calls.append((arguments, named))
        return self

    def poll(self):
        raise Stop


def found(**changes):
    # The sentences about GOOD with other values.
    settings = dict(GOOD)
    settings.update(changes)
    return list(main.problems(settings))


class ProblemsTests(unittest.TestCase):
    def one(self, name, value, *words):
        # True when there is one sentence; it begins with the setting's name and has these words.
        sentences = found(**{name: value})
        return (
            len(sentences) == 1
            and sentences[0].startswith(name + " ")
            and all(word in sentences[0] for word in words)
        )

    def test_good_settings(self):
        self.assertEqual(found(), [])

    def test_good_values(self):
        for changes in (
            {"WIFI_SSID": "\u00e9 & bar / 2+"},
            {"WIFI_PASSWORD": ""},
            {"MQTT_SERVER": "192.168.1.20"},
            {"MQTT_PORT": 1},
            {"MQTT_PORT": 65535},
            {"PRODUCT_KEY": "a" * 64},
            {"IDENTIFIER": "A-Z_0.9:@"},
            {"DEVICE_SECRET": "/+#& \u00e9"},
        ):
            self.assertEqual(found(**changes), [], changes)

    def test_missing(self):
        for name in TEXTS:
            settings = {key: GOOD[key] for key in GOOD if key != name}
            sentences = list(main.problems(settings))
            self.assertEqual(len(sentences), 1, name)
            self.assertTrue(sentences[0].startswith(name + " must be text"), sentences)

    def test_all_missing(self):
        sentences = list(main.problems({}))
        for name in TEXTS:
            self.assertEqual(len([s for s in sentences if s.startswith(name + " ")]), 1, name)

    def test_as_shipped(self):
        import boot

        sentences = list(main.problems(boot.__dict__))
        self.assertEqual([s.split()[0] for s in sentences], list(NEEDED))
        for sentence in sentences:
            self.assertTrue("not empty" in sentence, sentence)

    def test_empty(self):
        for name in NEEDED:
            self.assertTrue(self.one(name, "", "not empty"), name)

    def test_none(self):
        for name in TEXTS:
            self.assertTrue(self.one(name, None), name)

    def test_other_type(self):
        for name in TEXTS:
            for value in (5, 1.5, True, b"text", ["text"], ("a", "b"), {}):
                self.assertTrue(self.one(name, value, "quotes"), (name, value))

    def test_characters_that_the_agent_refuses(self):
        for name in ("PRODUCT_KEY", "IDENTIFIER"):
            for c in '/+#& !"\n\u00e9':
                self.assertTrue(self.one(name, "a" + c + "b", "a" + c + "b"), (name, c))

    def test_longer_than_the_agent_takes(self):
        for name in ("PRODUCT_KEY", "IDENTIFIER"):
            self.assertTrue(self.one(name, "a" * 65, "64"), name)

    def test_server_is_a_url(self):
        for value in ("mqtt://host", "host:1883", "host/", "my host"):
            self.assertTrue(self.one("MQTT_SERVER", value, value), value)

    def test_port_is_no_port(self):
        for port in (0, -1, 65536, "1883", "", 1883.0, True, None, (1883,)):
            self.assertTrue(self.one("MQTT_PORT", port, "1 to 65535"), port)

    def test_port_may_be_left_out(self):
        settings = {name: GOOD[name] for name in GOOD if name != "MQTT_PORT"}
        self.assertEqual(list(main.problems(settings)), [])

    def test_every_problem_is_told(self):
        sentences = found(WIFI_SSID="", MQTT_PORT=0, IDENTIFIER=7)
        self.assertEqual(len(sentences), 3)

    def test_secrets_are_not_told(self):
        for sentence in found(WIFI_SSID="", MQTT_SERVER=7, PRODUCT_KEY="a b", MQTT_PORT=0):
            for name in ("DEVICE_SECRET", "WIFI_PASSWORD"):
                self.assertFalse(GOOD[name] in sentence, sentence)
        for sentence in found(DEVICE_SECRET=12345678, WIFI_PASSWORD=12345678):
            self.assertFalse("12345678" in sentence, sentence)


class OtaCase(unittest.TestCase):
    def setUp(self):
        self._kept = sys.modules.get("ota")
        self.ota = sys.modules["ota"] = Ota()

    def tearDown(self):
        sys.modules.pop("ota")
        if self._kept:
            sys.modules["ota"] = self._kept


class RunTests(OtaCase):
    def test_bad_settings_lead_to_the_prompt(self):
        self.assertIsNone(main.run({}))
        self.assertEqual(self.ota.calls, [])

    def test_login(self):
        self.assertRaises(Stop, main.run, GOOD)
        self.assertEqual(
            self.ota.calls,
            [
                (
                    ("dev-1", "broker.example", 1884),
                    {"user": "k&dev-1", "password": "hush", "ssl": None},
                ),
                (("k", "dev-1", "link"), {"trust": None}),
            ],
        )

    def test_port_by_default(self):
        settings = {name: GOOD[name] for name in GOOD if name != "MQTT_PORT"}
        self.assertRaises(Stop, main.run, settings)
        self.assertEqual(self.ota.calls[0][0][2], 1883)


class Context:
    """Stands for tls.SSLContext. loaded: what load_verify_locations got."""

    verify_mode = None

    def __init__(self, _):
        self.loaded = []

    def load_verify_locations(self, data):
        if not data.startswith(b"0"):
            raise ValueError("invalid cert")
        self.loaded.append(bytes(data))


class Tls:
    """The module `tls`."""

    PROTOCOL_TLS_CLIENT = 0
    CERT_NONE = 7
    SSLContext = Context


DER = b"0\x82\1\2certificate"
PEM = (
    b"a comment\n-----BEGIN CERTIFICATE-----\nMIIBAmNlcnRp\nZmljYXRl\n-----END CERTIFICATE-----\n"
)


class TlsTests(unittest.TestCase):
    def setUp(self):
        self._kept = sys.modules.get("tls")
        sys.modules["tls"] = Tls()

    def tearDown(self):
        del sys.modules["tls"]
        if self._kept:
            sys.modules["tls"] = self._kept

    def test_ca_as_bytes(self):
        for ca, loaded in ((DER, [DER]), (PEM, [DER]), (PEM + PEM, [DER, DER])):
            self.assertEqual(main.secure(ca).loaded, loaded)

    def test_ca_in_a_file(self):
        for data in (DER, PEM):
            with open("ca.test", "wb") as file:
                file.write(data)
            try:
                self.assertEqual(main.secure("ca.test").loaded, [DER])
            finally:
                os.remove("ca.test")

    def test_ca_is_checked(self):
        self.assertIsNone(main.secure(DER).verify_mode)  # as the context has it: required

    def test_without_a_ca_nothing_is_checked(self):
        context = main.secure("")
        self.assertEqual((context.verify_mode, context.loaded), (7, []))


class TrustTests(OtaCase):
    """What main.run() makes of the settings of trust."""

    def setUp(self):
        super().setUp()
        self._tls = sys.modules.get("tls")
        sys.modules["tls"] = Tls()
        self._time = main.time
        main.time = self
        self.day = 2030, 1, 1, 0, 0, 0, 0, 0
        self.now = 0
        sys.modules["ntptime"] = self
        self.asked = 0
        self.polls = []
        self.ota.poll = self.poll
        self.ota.is_fetching = lambda: True

    def tearDown(self):
        super().tearDown()
        main.time = self._time
        del sys.modules["ntptime"]
        del sys.modules["tls"]
        if self._tls:
            sys.modules["tls"] = self._tls

    # The modules time and ntptime

    def gmtime(self):
        return self.day

    def ticks_ms(self):
        return 0

    def ticks_diff(self, later, earlier):
        return 0

    def time(self):
        return self.now

    def settime(self):
        self.asked += 1
        if not self.tells:
            raise OSError(110)
        self.day = self.tells

    # The agent: notes what it may use, ends after a while

    def poll(self):
        trust = self.ota.calls[-1][1]["trust"]
        self.polls.append(trust and trust.tls)
        self.now += 1
        if self.now == 20:
            raise Stop

    def Link(self, *arguments, **named):
        link = self.link = type("Link", (), {"up": True})()
        self.ota.calls.append((arguments, named))
        return link

    def run_with(self, tells=None, **changes):
        # What the agent was given: (of Link, of init).
        self.tells = tells
        self.now = 0
        settings = dict(GOOD)
        settings.update(changes)
        self.ota.Link = self.Link
        self.ota.calls.clear()
        self.polls.clear()
        self.assertRaises(Stop, main.run, settings)
        return self.ota.calls[0][1]["ssl"], self.ota.calls[1][1]["trust"]

    def test_key_is_the_signed_mode(self):
        key = "ab" * 256
        ssl, trust = self.run_with(PUBLIC_KEYS=(key,), BOARD="esp32")
        self.assertEqual((ssl, trust.keys, trust.board), (None, (key,), "esp32"))
        self.assertFalse(trust.tls or trust.hosts)

    def test_hosts_alone(self):
        _, trust = self.run_with(URL_HOSTS=("files.example",))
        self.assertEqual(trust.hosts, ("files.example",))
        self.assertFalse(trust.keys)

    def test_settings_of_before_have_no_trust(self):
        self.assertEqual(self.run_with(), (None, None))

    def test_ca_is_for_downloads_and_for_mqtt_when_that_is_asked_for(self):
        ssl, trust = self.run_with(CA=DER)
        self.assertIsNone(ssl)
        self.assertEqual(trust.tls.loaded, [DER])
        ssl, trust = self.run_with(CA=DER, MQTT_TLS=True)
        self.assertIs(ssl, trust)

    def test_unverified_alone(self):
        _, trust = self.run_with(ALLOW_UNVERIFIED_TLS=True)
        self.assertEqual(trust.tls.verify_mode, 7)

    def test_ca_wins_over_unverified(self):
        _, trust = self.run_with(ALLOW_UNVERIFIED_TLS=True, CA=DER)
        self.assertEqual((trust.tls.verify_mode, trust.tls.loaded), (None, [DER]))

    def test_no_tls_before_the_clock_is_set(self):
        self.day = 2000, 1, 1, 0, 0, 0, 0, 0
        self.run_with(CA=DER)
        self.assertEqual(self.polls, [None] * 20)
        self.assertEqual(self.asked, 3)  # one try every 8 s

    def test_tls_once_it_is_set(self):
        self.day = 2000, 1, 1, 0, 0, 0, 0, 0
        self.run_with((2030, 1, 1, 0, 0, 0, 0, 0), CA=DER)
        self.assertTrue(all(self.polls))
        self.assertEqual(self.asked, 1)

    def test_time_before_this_firmware_was_built_is_none(self):
        self.day = 2000, 1, 1, 0, 0, 0, 0, 0
        self.run_with((2019, 12, 31, 0, 0, 0, 0, 0), CA=DER)
        self.assertEqual(self.polls, [None] * 20)

    def test_day_of_the_build_is_good(self):
        year, month, day = sys.version[-10:].split("-")
        self.day = int(year), int(month), int(day), 0, 0, 0, 0, 0
        self.run_with(CA=DER)
        self.assertTrue(self.polls[0])

    def test_ca_that_cannot_be_read_leads_to_the_prompt(self):
        for ca in ("nosuch.pem", b"nonsense", 5):
            self.assertIsNone(main.run(dict(GOOD, CA=ca)))
        self.assertEqual(self.ota.calls, [])

    def test_key_that_is_none(self):
        for keys in (("ab",), ("",), "ab" * 256, ("ab" * 256, "x")):
            sentences = found(PUBLIC_KEYS=keys)
            self.assertEqual(len(sentences), 1)
            self.assertTrue(sentences[0].startswith("PUBLIC_KEYS must be"))
        for keys in ((), ("ab" * 256,), ("ab" * 384, "cd" * 256)):
            self.assertEqual(found(PUBLIC_KEYS=keys), [])
