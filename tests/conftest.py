"""What the tests share."""

import os

import pytest

from tools.servers import Missing
from tools.toolchain import LIB


def pytest_sessionstart(session):
    """A test over MicroPython without its libraries would fail far from the cause."""
    if not (LIB / "unittest.py").exists():
        pytest.exit("MicroPython's libraries are missing: make libraries", returncode=2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """
    A test that lacks a server is skipped, and says how to install it. CI=true: what is missing is
    a failure, so that nothing is left out unseen.
    """
    report = yield
    if report.failed and call.excinfo.errisinstance(Missing):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), None, f"Skipped: {call.excinfo.value}")
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and CI=true: {call.excinfo.value}"
    return report
