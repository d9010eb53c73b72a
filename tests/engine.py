"""The platform's engine, with a link that only notes what is sent."""

import json

from tools.platform.engine import Engine
from tools.platform.files import Files
from tools.platform.registry import Registry
from tools.platform.store import Store

WAIT_S = 20
REPLY_S = 30.0  # nobody is late by itself


class Link:
    """Notes what is sent: (device, name, message)."""

    def __init__(self):
        self.sent, self.waiting, self.renewed = [], 0, 0

    def renew(self):
        self.renewed += 1

    def publish(self, topic, payload):
        parts = topic.split("/")
        self.sent.append((parts[3], parts[6], json.loads(payload)))

    def commands(self, device=None):
        return [
            (name, message)
            for name, kind, message in self.sent
            if kind == "upgrade" and device in (None, name)
        ]


class Stage:
    """A store, engines over it, a product with firmware 1.1.0."""

    def __init__(self, folder, database):
        self.folder, self.shown_out = folder, []
        self.store = Store(folder, database)
        self.registry = Registry(
            self.store, Files(folder / "firmware"), None, self.shown_out.append
        )
        self.engines = []
        self.engine = self.add_engine()
        self.link = self.engine.link
        self.acknowledged = []
        self.registry.add_product("pk")
        self.source = folder / "a.bin"
        self.source.write_bytes(b"\xe9 firmware")
        self.firmware = self.registry.upload("pk", self.source, "1.1.0")

    def add_engine(self):
        engine = Engine(self.store, lambda item, key, until: f"http://h/{item.id}", REPLY_S, 0.05)
        engine.link = Link()
        engine.start()
        engine.link_changed(True)
        self.engines.append(engine)
        return engine

    def join(self, *names, version="1.0.0"):
        for name in names:
            self.registry.add_device("pk", name)
            self.say(name, "version", {"firmwareVersion": version})
        self.engine.wait_seen(list(names), WAIT_S)

    def say(self, device, name, data, msg_id="x", code=None, engine=None):
        message = {"msgId": msg_id, "version": "1.0", "data": data}
        if code is not None:
            message["code"] = code
        self.hear(device, name, json.dumps(message).encode(), engine)

    def hear(self, device, name, payload, engine=None):
        number = len(self.acknowledged)
        self.acknowledged.append(False)

        def done():
            self.acknowledged[number] = True

        topic = f"/sys/pk/{device}/ota/firmware/{name}"
        (engine or self.engine).received(topic, payload, False, done)

    def command(self, device, count=1):
        """The msgId of its count-th command."""
        self.until(lambda: len(self.link.commands(device)) >= count)
        return self.link.commands(device)[count - 1][1]["msgId"]

    def statuses(self, batch):
        return {row.device: row.status for row in self.engine.status(batch)}

    def until(self, condition):
        self.engine.until(condition, WAIT_S)

    def close(self):
        for engine in self.engines:
            engine.stop()
        self.store.close()
