"""
Boards on the desk: simulated devices with a serial port and a firmware as it is flashed by cable,
MicroPython with umqtt and nothing of ours. The fixtures are in tests/board_fixtures.py.
"""

import subprocess
import sys

from tools.device.device import Device
from tools.toolchain import ROOT

WAIT_S = 60
PROMPT = 'Type "help'  # before it, the REPL


def mpremote(board: Device, *words: str) -> tuple[int, str]:
    """Returns (exit status, what it printed)."""
    command = [sys.executable, "-m", "mpremote", "connect", board.serial.path, *words]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=WAIT_S, check=False, cwd=ROOT
    )
    return done.returncode, done.stdout
