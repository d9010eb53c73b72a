"""Runs of the pinned interpreter from the process that has it loaded."""

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.device import forkserver
from tools.toolchain import ROOT, micropython

PROGRAM = str(Path(sys.executable).with_name("micropython"))
WAIT = 20


def until(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def ended(pid):
    # Gone, or a zombie that nobody asks for.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def run(code, cwd="/", **env):
    return forkserver.start([PROGRAM, "-c", code], str(cwd), env)


def test_output_and_errors_come_in_one_pipe():
    done = run("import sys; print('out'); sys.stderr.write('err\\n'); 1 / 0")
    text = done.stdout.read().decode()
    assert text.startswith("out") and "err" in text and "ZeroDivisionError" in text
    done.wait(WAIT)
    assert done.poll() == 0


def test_folder_and_environment_are_those_that_were_given(tmp_path):
    code = "import os; print(os.getcwd(), os.getenv('ONE'), os.getenv('HOME'))"
    assert run(code, tmp_path, ONE="1").stdout.read().decode() == f"{tmp_path} 1 None\n"


def test_arguments_reach_the_interpreter():
    code = "import gc; gc.collect(); print(gc.mem_alloc() + gc.mem_free())"
    small = forkserver.start([PROGRAM, "-X", "heapsize=64k", "-c", code], "/", {})
    assert 50_000 < int(small.stdout.read()) < 65_536


def test_one_that_hangs_is_killed_and_the_next_one_runs():
    hangs = run("print('on')\nwhile True: pass")
    assert hangs.stdout.readline() == b"on\n"
    assert hangs.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        hangs.wait(0.01)
    hangs.kill()
    hangs.wait(WAIT)
    hangs.kill()  # harmless
    assert run("print('next')").stdout.read() == b"next\n"


def test_many_at_once():
    runs = [run(f"print({n})") for n in range(20)]
    assert [int(done.stdout.read()) for done in runs] == list(range(20))


def test_folder_that_is_not_there_is_told(tmp_path):
    assert b"FileNotFoundError" in run("print(1)", tmp_path / "none").stdout.read()


def test_runs_end_with_the_process_that_asked_for_them(tmp_path):
    code = (
        "import sys, tools.device.forkserver as f\n"
        f"run = f.start([{PROGRAM!r}, '-c', 'print(1)\\nwhile True: pass'], '/', {{}})\n"
        "run.stdout.readline(); import os\n"
        "print(open(f'/proc/self/fdinfo/{run._pidfd}').read()); sys.stdout.flush(); os._exit(1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    pid = int(re.search(r"Pid:\s+(\d+)", done.stdout).group(1))
    until(lambda: ended(pid))


def test_server_that_was_ended_is_followed_by_another():
    run("print(1)").stdout.read()
    forkserver._servers[0].shutdown(socket.SHUT_RDWR)
    assert run("print(2)").stdout.read() == b"2\n"
    assert len(forkserver._servers) == 1


def test_only_the_pinned_interpreter_is_served(monkeypatch):
    assert forkserver.serves(PROGRAM)
    monkeypatch.setenv("MICROPYTHON", "/bin/true")
    assert not forkserver.serves(str(micropython()))
