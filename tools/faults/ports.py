"""
Ports that stay ours while nobody listens. A server that is down gives its port back, and the next
case beside it may get that one: then its device talks to the wrong world.
"""

import socket

HOST = "127.0.0.1"


class Port:
    """
    A port of this machine, held until close(). number: of it. Who connects while nobody listens is
    refused, as it should be; a server binds to it as usual, since both say SO_REUSEADDR.
    """

    def __init__(self, number: int = 0):
        """number: 0 = any free one. Raises OSError: it is taken."""
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((HOST, number))
        self.number = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()
