"""What the tests share."""

import pytest

from tools.toolchain import LIB


def pytest_sessionstart(session):
    """A test over MicroPython without its libraries would fail far from the cause."""
    if not (LIB / "unittest.py").exists():
        pytest.exit("MicroPython's libraries are missing: make libraries", returncode=2)
