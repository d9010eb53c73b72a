"""
The platform as an MQTT client (paho), at the embedded broker or at one outside.

paho runs in a thread of its own and connects again by itself; here its calls come back into the
platform's event loop. A message is acknowledged only after it was handled, so that the broker
keeps what a dying platform had not stored.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt

from tools.platform import wire
from tools.platform.model import PlatformError

_FROM_DEVICES = (wire.UPGRADE_REPLY, wire.PROGRESS, wire.VERSION, wire.GET)
_QUEUE_MAX = 10_000  # messages that wait for a broker that is away
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
    while the platform is away (a session); received: called with (topic, payload bytes, retained
    bool) in the event loop, for each message of a device; changed: called with True when it is
    connected and subscribed, with False when the connection is lost.
    """

    def __init__(
        self,
        address: Address,
        client_id: str,
        lasting: bool,
        received: Callable,
        changed: Callable,
    ):
        self._address, self._received, self._changed = address, received, changed
        self._complaint = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client = client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=not lasting,
            manual_ack=True,
        )
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

    def start(self):
        """
        Begins to connect, in the running event loop. Never raises for a broker that is away: it
        tries again.
        """
        self._loop = asyncio.get_running_loop()
        self._client.connect_async(self._address.host, self._address.port, keepalive=30)
        self._client.loop_start()

    async def stop(self):
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    def publish(self, topic: str, payload: str | bytes, retain: bool = False):
        """At QoS 1. What cannot be sent now waits for the connection."""
        self._client.publish(topic, payload, qos=1, retain=retain)

    # In paho's thread

    def _on_connect(self, client, userdata, flags, reason, properties):
        if reason.is_failure:
            self._complain(f"the broker refuses the platform: {reason}")
        else:
            self._complaint = ""
            client.subscribe([(wire.topic(("+", "+"), name), 1) for name in _FROM_DEVICES])

    def _on_connect_fail(self, client, userdata):
        self._complain(f"no broker at {self._address.host}:{self._address.port}, trying again")

    def _on_subscribe(self, client, userdata, mid, reasons, properties):
        self._call(self._changed, not any(reason.is_failure for reason in reasons))

    def _on_disconnect(self, client, userdata, flags, reason, properties):
        self._call(self._changed, False)

    def _on_message(self, client, userdata, message):
        self._call(self._handle, message)

    def _complain(self, text):
        # Once, not at each try.
        if text != self._complaint:
            self._complaint = text
            _log.warning(text)

    def _call(self, function, *arguments):
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass  # the loop has ended, and with it the platform

    # In the event loop

    def _handle(self, message):
        self._received(message.topic, message.payload, message.retain)
        self._client.ack(message.mid, message.qos)
