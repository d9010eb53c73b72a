"""What the tests share."""

import os

import pytest

from tools.toolchain import LIB


def pytest_sessionstart(session):
    """A test over MicroPython without its libraries would fail far from the cause."""
    if not (LIB / "unittest.py").exists():
        pytest.exit("MicroPython's libraries are missing: make libraries", returncode=2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """CI=true: what is missing is a failure, so that nothing is left out unseen."""
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and CI=true: {call.excinfo.value}"
    return report
