"""A platform in a process of its own, that can be killed and comes back at once."""

import asyncio
import multiprocessing
from multiprocessing.connection import Connection

# Forked from a process that has it loaded: a start takes no second.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.served", "tools.platform.web"])
_START_S = 30


def _serve(pipe: Connection, folder, options: dict) -> None:
    from tools.platform.server import Platform

    async def serve():
        platform = Platform(folder, **options)
        await platform.start()
        engine = platform.engine
        await asyncio.to_thread(engine.until, lambda: engine.connected, _START_S)
        pipe.send((platform.mqtt_port, platform.http_port))
        await asyncio.Event().wait()

    asyncio.run(serve())


class Served:
    """
    folder, options: of server.Platform. Attributes, once started: mqtt_port, http_port, which
    stay.
    """

    def __init__(self, folder, **options):
        self._folder, self._options = folder, options
        self._process = None

    def start(self) -> None:
        """Returns when it answers, and hears devices. Raises EOFError when it ends instead."""
        here, there = _context.Pipe()
        self._process = _context.Process(
            target=_serve, args=(there, self._folder, self._options), daemon=True
        )
        self._process.start()
        there.close()
        if not here.poll(_START_S):
            raise TimeoutError("the platform does not start")
        self.mqtt_port, self.http_port = here.recv()
        self._options["http_port"] = self.http_port
        if "broker" not in self._options:
            self._options["mqtt_port"] = self.mqtt_port

    def kill(self) -> None:
        """SIGKILL. Harmless when it does not run."""
        if self._process:
            self._process.kill()
            self._process.join()
            self._process = None
