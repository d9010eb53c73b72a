"""
The platform as an MQTT client (paho), at the embedded broker or at one outside.

paho runs in a thread of its own, which calls the engine, and connects again by itself. A message
is acknowledged only after it was handled, so that the broker keeps what a dying platform had not
stored.
"""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt

from tools.platform import wire
from tools.platform.model import PlatformError

_QUEUE_MAX = 10_000  # messages that wait for a broker that is away
_INFLIGHT = 100  # of ours that the broker has not acknowledged
_GROUP = "ota-platform"  # of a shared subscription: each message comes to one of the workers
_RECONNECT_S = (0.5, 10)
_log = logging.getLogger(__name__)


@dataclass
class Address:
    """Where a broker is, and who the platform is there."""

    host: str
    port: int
    user: str = ""
    password: str = ""
    tls: bool = False


def address_of(url: str) -> Address:
    """Reads mqtt://user:password@host:port, or mqtts://. Raises PlatformError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise PlatformError(f"broker {url!r}: {error}") from error
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path.strip("/"):
        raise PlatformError(
            f"broker {url!r}: it looks like mqtt://host:1883 or mqtts://user:password@host:8883"
        )
    tls = parts.scheme == "mqtts"
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Address(parts.hostname, port or (8883 if tls else 1883), user, password, tls)


class Link:
    """
    The connection. client_id: of this platform; lasting: True = the broker keeps what devices say
    while the platform is away (a session); shared: True = other workers take a part of the
    messages; received: called for each message of a device with (topic, payload bytes, retained
    bool, done, lossy bool), done() acknowledges it, from any thread, lossy: it came at QoS 0;
    changed: called with True when it is connected and subscribed, with False when the connection
    is lost.
    """

    def __init__(
        self,
        address: Address,
        client_id: str,
        lasting: bool,
        shared: bool,
        received: Callable,
        changed: Callable,
    ):
        self._address, self._received, self._changed = address, received, changed
        self._prefix = f"$share/{_GROUP}/" if shared else ""
        self._complaint = ""
        self._session = 0  # counts connections
        self._waiting, self._lock = 0, threading.Lock()
        self._client = client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=not lasting,
            manual_ack=True,
        )
        client.max_inflight_messages_set(_INFLIGHT)
        client.max_queued_messages_set(_QUEUE_MAX)
        client.reconnect_delay_set(*_RECONNECT_S)
        if address.user:
            client.username_pw_set(address.user, address.password)
        if address.tls:
            client.tls_set()
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish

    def start(self):
        """
        Begins to connect. Never raises for a broker that is away: it tries again.
        """
        self._client.connect_async(self._address.host, self._address.port, keepalive=30)
        self._client.loop_start()

    def stop(self):
        """Disconnects, and waits for paho's end."""
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: str | bytes, retain: bool = False):
        """
        At QoS 1. What cannot be sent now waits for the connection; of more than can wait, the
        newest is lost: a device asks again.
        """
        self._count(1)
        sent = self._client.publish(topic, payload, qos=1, retain=retain)
        if sent.rc == mqtt.MQTT_ERR_QUEUE_SIZE:
            self._count(-1)
            _log.warning("too many messages wait for the broker: one to %s is lost", topic)

    def renew(self):
        """Breaks the connection, so that the broker sends again what was not acknowledged."""
        with contextlib.suppress(AttributeError, OSError):  # there is none, or it has just gone
            self._client.socket().shutdown(socket.SHUT_RDWR)

    @property
    def waiting(self) -> int:
        """How many messages the broker has not acknowledged."""
        return self._waiting

    def _count(self, more):
        with self._lock:
            self._waiting += more

    # In paho's thread

    def _on_connect(self, client, userdata, flags, reason, properties):
        self._session += 1
        if reason.is_failure:
            self._complain(f"the broker refuses the platform: {reason}")
        else:
            everybody = [wire.topic(("+", "+"), name) for name in wire.FROM_DEVICE]
            client.subscribe([(self._prefix + topic, 1) for topic in everybody])

    def _on_connect_fail(self, client, userdata):
        self._complain(f"no broker at {self._address.host}:{self._address.port}, trying again")

    def _on_subscribe(self, client, userdata, mid, reasons, properties):
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            self._complain(f"the broker refuses the platform its topics: {refused[0]}")
            self.renew()
        else:
            self._complaint = ""
            self._changed(True)

    def _on_publish(self, client, userdata, mid, reason, properties):
        self._count(-1)

    def _on_disconnect(self, client, userdata, flags, reason, properties):
        self._changed(False)

    def _on_message(self, client, userdata, message):
        session = self._session

        def done():
            # A packet id is that of another message by now, when the connection is another.
            if session == self._session:
                client.ack(message.mid, message.qos)

        lossy = message.qos == 0
        self._received(message.topic, message.payload, message.retain, done, lossy)

    def _complain(self, text):
        # Once, not at each try.
        if text != self._complaint:
            self._complaint = text
            _log.warning(text)
