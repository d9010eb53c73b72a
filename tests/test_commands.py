"""The one command of the host side, and what continuous integration makes of a skipped test."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tools import __main__ as command
from tools.toolchain import ROOT


def test_help_names_every_command(capsys):
    assert command.main(["--help"]) == 0
    words = capsys.readouterr().out.split()
    assert {"demo", "device", "image", "platform"} <= set(words)


@pytest.mark.parametrize("argv", [[], ["unknown"], ["unknown", "--help"]])
def test_unknown_command_is_an_error(argv, capsys):
    assert command.main(argv) == 2
    assert "usage: python -m tools" in capsys.readouterr().err


@pytest.mark.parametrize("name", command.COMMANDS)
def test_every_command_has_its_module(name):
    assert find_spec(f"tools.{name}.cli")


def test_without_the_libraries_it_says_what_to_do():
    program = [sys.executable, "-S", "-m", "tools", "platform", "status"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "`make venv` makes .venv" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_a_skipped_test_fails_in_ci(ci, status, tmp_path):
    file = tmp_path / "test_it.py"
    file.write_text("import pytest\ndef test_a():\n    pytest.skip('no browser')\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", os.devnull, "-rA", file],
        cwd=ROOT,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout
    assert "no browser" in done.stdout
