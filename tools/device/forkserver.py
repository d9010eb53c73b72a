"""
Starts interpreters fast. The pinned MicroPython is a module of CPython behind a script, and most
of the time of a short run is CPython's own start: so one process has it loaded, and forks for each
run.

Two sides: `start` in the process that wants a run, and this file as a program, which must not
import anything of ours. They talk over a socket pair; the file descriptors of the run's output and
of the process (pidfd) pass through it. Linux only.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

_MODULE = "micropython_unix"
_REQUEST_MAX = 65536  # bytes
_WAIT_S = 20  # for the server's answer

_lock = threading.Lock()
_servers: list[socket.socket] = []


class Run:
    """One run of the interpreter, with what is used of a subprocess.Popen."""

    def __init__(self, pidfd: int, stdout):
        self._pidfd = pidfd
        self.stdout = stdout

    def poll(self) -> int | None:
        """None while it runs."""
        return 0 if self._ended(0) else None

    def kill(self) -> None:
        """Ends it at once; nothing when it has ended."""
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def wait(self, timeout: float) -> None:
        """Until it is gone. timeout: seconds. Raises TimeoutExpired."""
        if not self._ended(timeout):
            raise subprocess.TimeoutExpired(_MODULE, timeout)

    def _ended(self, wait: float) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(wait * 1000))

    def __del__(self):
        os.close(self._pidfd)


def serves(program: str) -> bool:
    """True for the pinned interpreter: others are started as any program."""
    return Path(program) == Path(sys.executable).with_name("micropython")


def start(arguments: list[str], cwd: str, env: dict[str, str]) -> Run:
    """
    Runs the interpreter: arguments, cwd, env as for Popen; no input, its output and errors in one
    pipe. Raises OSError when the server is gone.
    """
    request = json.dumps({"arguments": arguments, "cwd": cwd, "env": env}).encode()
    output, end = os.pipe()
    try:
        with _lock:
            try:
                pidfd = _ask(request, end)
            except OSError:  # somebody ended it: a new one
                pidfd = _ask(request, end)
    except OSError:
        os.close(output)
        raise
    finally:
        os.close(end)
    return Run(pidfd, os.fdopen(output, "rb"))


def _ask(request: bytes, end: int) -> int:
    server = _server()
    try:
        socket.send_fds(server, [request], [end])
        _, fds, _, _ = socket.recv_fds(server, 16, 1)
        if fds:
            return fds[0]
        raise ConnectionError("the server of interpreters is gone")
    except OSError:
        # Not asked again: a late answer would be taken for the next one's.
        _servers.remove(server)
        server.close()
        raise


def _server() -> socket.socket:
    if not _servers:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_WAIT_S)
        site = str(Path(find_spec(_MODULE).origin).parent)
        # Isolated, without `site`: what it needs is named.
        command = [sys.executable, "-I", "-S", __file__, site]
        # In a session of its own: Ctrl-C is for the one that ends it.
        process = subprocess.Popen(command, stdin=theirs, start_new_session=True)
        theirs.close()
        atexit.register(process.wait)
        atexit.register(ours.close)  # runs first, and ends it
        _servers.append(ours)
    return _servers[0]


def _serve(site: str) -> None:
    sys.path.append(site)
    from micropython_unix import main

    running: set[int] = set()
    with socket.socket(fileno=os.dup(0)) as client:
        while True:
            request, fds, _, _ = socket.recv_fds(client, _REQUEST_MAX, 1)
            if not request:  # whoever asked is gone: a device does not outlive its bench
                break
            pid = os.fork()
            if not pid:
                client.close()
                _run(main, json.loads(request), fds[0])
            running.add(pid)
            os.close(fds[0])
            pidfd = os.pidfd_open(pid)  # before it can be reaped
            socket.send_fds(client, [b"."], [pidfd])
            os.close(pidfd)
            while running and (ended := os.waitpid(-1, os.WNOHANG)[0]):
                running.discard(ended)
    for pid in running:  # not reaped yet, so they are still ours
        os.kill(pid, signal.SIGKILL)


def _run(main, request: dict, output: int) -> None:
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.closerange(3, max(nothing, output) + 1)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv[:] = request["arguments"]
        main()
    except Exception as error:  # into the run's output
        print(f"{error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
