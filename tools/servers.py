"""
The real servers that tests and benchmarks talk to, each with a folder and a port of its own:
mosquitto, nginx, PostgreSQL. Where they come from: `make mosquitto nginx postgres`.
"""

import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HOST = "127.0.0.1"
_START_S = 10
# The target that installs it.
_OF = {"initdb": "postgres", "pg_isready": "postgres", "mosquitto_passwd": "mosquitto"}
_STOP_S = 10


class Missing(FileNotFoundError):
    """A program that is not installed; says how to install it."""


def program(name: str) -> str:
    """Its path, also where not everybody looks. Raises Missing."""
    more = ["/usr/sbin", "/usr/local/sbin", *sorted(glob.glob("/usr/lib/postgresql/*/bin"))]
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *more]))
    if found is None:
        raise Missing(f"{name} is missing: make {_OF.get(name, name)}")
    return found


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.create_server((HOST, 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def running(
    command: list, port: int, folder: Path, asked: list | None = None, **options
) -> Iterator[subprocess.Popen]:
    """
    A process that listens on the port, its output in folder/log. asked: a command that succeeds
    once it answers, None = it does as soon as it listens; options: of Popen. Raises RuntimeError
    with the end of the log when it does not come up.
    """
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **options)
    try:
        end = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
                if not asked or _succeeds(asked):
                    break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[0]}: {(folder / 'log').read_text()[-500:]}")
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _succeeds(command):
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def mosquitto(folder: Path, *lines: str, port: int = 0) -> Iterator[int]:
    """lines: of its configuration, beside that of the listener. Yields its port."""
    folder.mkdir(exist_ok=True)
    port = port or free_port()
    config = folder / "mosquitto.conf"
    head = [f"listener {port} {HOST}", "user root", "log_dest stderr"]
    config.write_text("\n".join([*head, *lines, ""]))
    with running([program("mosquitto"), "-c", config], port, folder) as process:
        (folder / "pid").write_text(str(process.pid))
        yield port


def reload(folder: Path) -> None:
    """The mosquitto of that folder reads its files with passwords and rights again."""
    os.kill(int((folder / "pid").read_text()), signal.SIGHUP)


@contextlib.contextmanager
def postgres(*settings: str) -> Iterator[str]:
    """settings: like "fsync=off". Yields the URL of an empty data base, for SQLAlchemy."""
    # It does not run as root, and who it runs as reaches no folder of root's.
    folder = Path(tempfile.mkdtemp(prefix="ota-postgres-"))
    who = {}
    if os.geteuid() == 0:
        who = {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(folder, "postgres", "postgres")
    data, port = folder / "data", free_port()
    try:
        make = [program("initdb"), "-D", data, "-U", "ota", "-A", "trust", "--no-sync"]
        done = subprocess.run(make, capture_output=True, text=True, cwd=folder, check=False, **who)
        if done.returncode:
            raise RuntimeError(f"initdb: {done.stderr[-500:]}")
        options = [f"port={port}", f"listen_addresses={HOST}", f"unix_socket_directories={folder}"]
        command = [program("postgres"), "-D", data]
        for setting in (*options, *settings):
            command += ["-c", setting]
        # It listens before it has started up.
        asked = [program("pg_isready"), "-h", HOST, "-p", str(port), "-t", "1"]
        with running(command, port, folder, asked, cwd=folder, **who):
            yield f"postgresql+psycopg://ota@{HOST}:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
