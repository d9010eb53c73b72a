"""`python -m tools console`: what it prints is true, and Ctrl-C ends it."""

import re
import signal
import subprocess
import sys

import httpx

from tests.bench import until
from tools.toolchain import ROOT

WAIT_S = 60


def test_console_to_play_with():
    command = [sys.executable, "-m", "tools", "console", "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        text = ""
        while "Ctrl-C" not in text and process.poll() is None:
            text += process.stdout.readline()
        url = re.search(r"http://\S+", text)[0]
        name, password = (re.search(rf"{key} +(\S+)", text)[1] for key in ("name", "password"))
        files = re.findall(r"^  (/\S+\.bin)  version (\S+)", text, re.MULTILINE)
        assert [version.strip(",") for _, version in files] == ["1.1.0", "1.2.0"]
        with httpx.Client(base_url=url, headers={"Accept": "text/html"}) as http:

            def token(path):
                return re.search(r'name="csrf" value="([^"]+)"', http.get(path).text)[1]

            form = {"csrf": token("/login"), "name": name, "password": password}
            assert http.post("/login", data=form).headers["Location"] == "/"
            form = {"csrf": token("/"), "product": "lamp", "version": "1.1.0", "name": "good"}
            with open(files[0][0], "rb") as file:
                assert http.post("/firmware", data=form, files={"file": file}).status_code == 303
            form = {"csrf": form["csrf"], "firmware": "1"}
            assert http.post("/batches", data=form).headers["Location"] == "/batches/1"
            until(lambda: "2 Succeeded" in http.get("/batches/1").text, "no success", WAIT_S)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0
        process.stdout.close()


def test_a_port_that_is_taken(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "tools", "console", "--no-browser", "--port"]
        command.append(str(taken.getsockname()[1]))
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False
        )
    assert done.returncode == 1
    assert "cannot start" in done.stderr
