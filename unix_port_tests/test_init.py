"""
Tests of ota/__init__.py: the public names, loaded when first used.
"""

import sys
import unittest


def loaded():
    # The modules of the package that are in memory.
    return [name for name in sys.modules if name == "ota" or name.startswith("ota.")]


class InitTests(unittest.TestCase):
    def setUp(self):
        self._kept = {name: sys.modules.pop(name) for name in loaded()}
        import ota

        self.ota = ota

    def tearDown(self):
        for name in loaded():
            del sys.modules[name]
        sys.modules.update(self._kept)

    def test_import_loads_nothing_else(self):
        self.assertEqual(loaded(), ["ota"])

    def test_error_loads_no_download(self):
        self.assertTrue(issubclass(self.ota.OTAError, Exception))
        self.assertFalse("ota.download" in loaded())
        self.assertFalse("ota.stream" in loaded())

    def test_link_loads_no_agent(self):
        self.assertEqual(self.ota.Link.__name__, "Link")
        self.assertFalse("ota.agent" in loaded())

    def test_init_is_the_class(self):
        self.assertIs(self.ota.init, self.ota.OTA)
        self.assertIs(self.ota.OTA, sys.modules["ota.agent"].OTA)

    def test_names_can_be_imported(self):
        from ota import OTA, Link, OTAError, init

        self.assertIs(init, OTA)
        self.assertEqual(OTAError(410).code, 410)
        self.assertTrue(callable(Link))

    def test_unknown_name_is_an_attribute_error(self):
        for name in ("nothing", "Init", "ota", "", "__path"):
            with self.assertRaises(AttributeError):
                getattr(self.ota, name)
            self.assertFalse(hasattr(self.ota, name))

    def test_unknown_name_loads_nothing(self):
        hasattr(self.ota, "nothing")
        self.assertEqual(loaded(), ["ota"])

    def test_unknown_name_cannot_be_imported(self):
        with self.assertRaises((AttributeError, ImportError)):
            from ota import nothing  # noqa: F401
