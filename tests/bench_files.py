"""A file server of which a test writes every answer itself."""

import re
import socket
import threading
from collections.abc import Callable

from tests.bench import PATIENCE

# A handler of FileServer: (connection, the request's line and headers) -> None. Closes when done.
Handler = Callable[[socket.socket, str], None]


def answer(status: str, body: bytes = b"", *headers: str, size: int | None = None) -> Handler:
    """A handler that answers at once. size: of the Content-Length, default the body's."""
    lines = [f"HTTP/1.0 {status}", f"Content-Length: {len(body) if size is None else size}"]
    head = "\r\n".join([*lines, *headers, "", ""]).encode()
    return lambda sock, request: sock.sendall(head + body)


def ranged(body: bytes, size: int, silent: bool = False) -> Handler:
    """
    A handler that knows ranges, of a file that is said to have so many bytes, and has those of
    body; silent: what is missing does not come, and the connection stays.
    """

    def handle(sock: socket.socket, request: str) -> None:
        found = re.search(r"Range: bytes=(\d+)-\r", request)
        start = int(found.group(1)) if found else 0
        span = f"Content-Range: bytes {start}-{size - 1}/{size}"
        status = "206 Partial Content" if found else "200 OK"
        answer(status, body[start:], *[span] * bool(found), size=size - start)(sock, request)
        if silent:
            sock.recv(1)  # until the device has gone

    return handle


class FileServer:
    """
    A file server whose every answer a test writes itself. A context manager.

    paths: path ("/a.bin") to Handler, to be filled at any time; requests: what came, line and
    headers.
    """

    def __init__(self):
        self.paths: dict[str, Handler] = {}
        self.requests: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)

    def asked(self, path: str) -> list[str]:
        """The requests for a path."""
        return [r for r in self.requests if r.split(" ")[1] == path]

    def _accept(self) -> None:
        while True:
            try:
                sock = self._listener.accept()[0]
            except OSError:  # closed
                return
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            sock.settimeout(PATIENCE)
            request = b""
            try:
                while b"\r\n\r\n" not in request and (data := sock.recv(4096)):
                    request += data
                if request:
                    self.requests.append(request.decode())
                    handler = self.paths[self.requests[-1].split(" ")[1]]
                    handler(sock, self.requests[-1])
            except OSError:
                pass  # the device had enough
