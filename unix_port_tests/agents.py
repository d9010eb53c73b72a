"""
The agent in tests: MQTT clients without a broker, and a test case that speaks for the platform.
"""

import gc
import json
from errno import ENOTCONN

from fakes import END, SIGN, Case, data

import ota
from ota.agent import OTA

PREFIX = "/sys/pk/dev/ota/firmware/"


class PlainClient:
    """
    An MQTT client without a broker, of the kind of umqtt: publish() returns when the broker has
    the message. sent: list of (name behind PREFIX, message, qos); inbox: (topic, msg) that
    check_msg gives to the callback; fault: raised by publish; topics: subscribed ones.
    """

    def __init__(self):
        self.cb = None
        self.sent = []
        self.inbox = []
        self.topics = []
        self.fault = None
        self._inside = False

    def set_callback(self, callback):
        self.cb = callback

    def subscribe(self, topic, qos=0):
        self.topics.append((topic, qos))

    def publish(self, topic, msg, retain=False, qos=0):
        if self._inside:
            raise AssertionError("published inside the callback")
        if self.fault:
            raise self.fault
        if not topic.startswith(PREFIX) or retain:
            raise AssertionError(topic)
        self.sent.append((topic[len(PREFIX) :], json.loads(msg), qos))

    def check_msg(self):
        self._inside = True
        while self.inbox:
            self.cb(*self.inbox.pop(0))
        self._inside = False


class Client(PlainClient):
    """
    The same, of the kind of Link: a QoS 1 message is acknowledged at the next check_msg. up: as
    in Link; acks: False = no acknowledgement comes; lost: names whose acknowledgement never does.
    """

    def __init__(self, up=3):
        super().__init__()
        self.up = up
        self.unacked = {}  # packet id: name
        self.acks = True
        self.lost = ()
        self._pid = 0

    def publish(self, topic, msg, retain=False, qos=0):
        if not self.up:
            raise OSError(ENOTCONN)
        super().publish(topic, msg, retain, qos)
        if not qos:
            return None
        self._pid += 1
        self.unacked[self._pid] = self.sent[-1][0]
        return self._pid

    def check_msg(self):
        for pid, name in list(self.unacked.items()):
            if self.acks and name not in self.lost:
                del self.unacked[pid]
        super().check_msg()

    def reconnect(self):
        """The connection went and came."""
        self.up += 2
        self.unacked.clear()


class AgentCase(Case):
    """The same, with a client and, after start(), an agent."""

    def setUp(self):
        super().setUp()
        self.client = Client()

    def start(self, client=None, **settings):
        """Starts the agent as at power on. Returns it; it said and asked nothing yet."""
        self.client = client or Client()
        # As at power on: nothing of the one before is on the heap, though a test may name it.
        before = getattr(self, "agent", None)
        if before:
            before.block = None
        self.agent = before = None
        if hasattr(ota, "counted"):  # a crash, by the start before
            del ota.counted
        gc.collect()
        self.agent = OTA("pk", "dev", self.client, **settings)
        return self.agent

    def ready(self, **settings):
        """An agent that has told its version, has asked, and got the answer "nothing"."""
        self.start(**settings)
        self.poll(3)
        self.answer(None)
        self.poll()
        del self.client.sent[:]
        return self.agent

    def poll(self, times=1):
        for _ in range(times):
            self.agent.poll()

    def poll_until(self, done, most=1500):
        """Polls until done() is true, 20 ms apart; fails after so many times."""
        for _ in range(most):
            if done():
                return
            self.agent.poll()
            self.clock.advance(20)
        self.fail("never came: %s" % self.client.sent)

    def say(self, name, message):
        """Puts a message to the device into the inbox."""
        text = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.client.inbox.append(((PREFIX + name).encode(), text))

    def command(self, msg_id="m1", version="2.0", sign=SIGN, policy="standard", size=4096, **more):
        """An upgrade command arrives. size, policy None: left out."""
        self.say(
            "upgrade",
            {"msgId": msg_id, "version": "1.0", "data": data(version, sign, policy, size, **more)},
        )

    def answer(self, body, msg_id=None):
        """The answer to the last get: its data, None = 404."""
        message = {"msgId": msg_id or self.sent("get")[-1]["msgId"], "version": "1.0"}
        if body is None:
            message["code"] = 404
        else:
            message["data"] = body
        self.say("get_reply", message)

    def sent(self, name):
        """The messages that left under that name."""
        return [message for topic, message, _ in self.client.sent if topic == name]

    def replies(self):
        """(msgId, code) of each reply to a command."""
        return [(message["msgId"], message["code"]) for message in self.sent("upgrade_reply")]

    def progress(self):
        """(status, progress, code or None) of each report."""
        return [(d["status"], d["progress"], d.get("code")) for d in self.bodies("progress")]

    def bodies(self, name):
        return [message["data"] for message in self.sent(name)]

    def serve(self, body, *head, status=b"200 OK"):
        """The next connection brings an HTTP answer. head: more header lines."""
        lines = [b"HTTP/1.0 " + status, b"Content-Length: %d" % len(body)]
        lines.extend(head)
        self.net.script(b"\r\n".join(lines) + b"\r\n\r\n", body, END)
