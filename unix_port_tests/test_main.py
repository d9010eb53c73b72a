"""
Tests of main.py: what it says of each setting, and how it connects with them.

main.py beside this file is a link to it. It runs when it is imported; without settings it only
says so. Source of the expected values: docs/protocol.md, "Identity and login".
"""

import sys
import unittest

import main

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

    def init(self, *arguments):
        self.calls.append(arguments)
        return self

    def poll(self):
        raise Stop


def found(**changes):
    # The sentences about GOOD with other values.
    settings = dict(GOOD)
    settings.update(changes)
    return main.problems(settings)


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
            sentences = main.problems(settings)
            self.assertEqual(len(sentences), 1, name)
            self.assertTrue(sentences[0].startswith(name + " is missing"), sentences)

    def test_all_missing(self):
        sentences = main.problems({})
        for name in TEXTS:
            self.assertEqual(len([s for s in sentences if s.startswith(name + " ")]), 1, name)

    def test_as_shipped(self):
        import boot

        sentences = main.problems(boot.__dict__)
        self.assertEqual([s.split()[0] for s in sentences], list(NEEDED))
        for sentence in sentences:
            self.assertTrue("is empty" in sentence, sentence)

    def test_empty(self):
        for name in NEEDED:
            self.assertTrue(self.one(name, "", "is empty"), name)

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
        self.assertEqual(main.problems(settings), [])

    def test_every_problem_is_told(self):
        sentences = found(WIFI_SSID="", MQTT_PORT=0, IDENTIFIER=7)
        self.assertEqual(len(sentences), 3)

    def test_secrets_are_not_told(self):
        for sentence in found(WIFI_SSID="", MQTT_SERVER=7, PRODUCT_KEY="a b", MQTT_PORT=0):
            for name in ("DEVICE_SECRET", "WIFI_PASSWORD"):
                self.assertFalse(GOOD[name] in sentence, sentence)
        for sentence in found(DEVICE_SECRET=12345678, WIFI_PASSWORD=12345678):
            self.assertFalse("12345678" in sentence, sentence)


class RunTests(unittest.TestCase):
    def setUp(self):
        self._kept = sys.modules.get("ota")
        self.ota = sys.modules["ota"] = Ota()

    def tearDown(self):
        sys.modules.pop("ota")
        if self._kept:
            sys.modules["ota"] = self._kept

    def test_bad_settings_lead_to_the_prompt(self):
        self.assertIsNone(main.run({}))
        self.assertEqual(self.ota.calls, [])

    def test_login(self):
        self.assertRaises(Stop, main.run, GOOD)
        self.assertEqual(
            self.ota.calls,
            [
                (("dev-1", "broker.example", 1884), {"user": "k&dev-1", "password": "hush"}),
                ("k", "dev-1", "link"),
            ],
        )

    def test_port_by_default(self):
        settings = {name: GOOD[name] for name in GOOD if name != "MQTT_PORT"}
        self.assertRaises(Stop, main.run, settings)
        self.assertEqual(self.ota.calls[0][0][2], 1883)
