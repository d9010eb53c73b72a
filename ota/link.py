"""
An umqtt client that stays connected: time-outs, ping, back-off with jitter, subscribes again.

The packets are umqtt's own (umqtt.simple of the firmware, of any age); this adds what it lacks.
Nothing here blocks for longer than 5 s and the time for DNS. Connection and subscriptions are made
by check_msg(), so just go on calling it. Source: MQTT 3.1.1; docs/limits.md for what umqtt leaves
open.
"""

from random import randrange

from umqtt import simple

from .stream import after, call, left

_ACK_MS = const(10000)
_PIDS = const(65000)


class Link(simple.MQTTClient):
    """
    Arguments as umqtt.simple's MQTTClient. up: int, 0 = not connected, else another number for
    every session; unacked: set of packet ids that were sent at QoS 1 and not acknowledged yet.
    """

    #: the longest wait between two tries to connect, in seconds; large enough to spread a fleet
    #: after an outage
    back_off_s = 300
    #: see above
    up = 0
    _wait = 2000

    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        self.keepalive = self.keepalive or 60  # without it a dead connection would go unseen
        self.unacked = set()
        self.items = []
        self._due = after(0)  # the next try, or once connected the end of patience

    def subscribe(self, topic, qos=0):
        """
        Makes the next connection subscribe, and every one after it; when connected, that is soon:
        it connects again.
        """
        item = (topic, qos)
        if item not in self.items:
            self.items.append(item)
            if self.up:
                self.close()

    def publish(self, topic, msg, retain=False, qos=0):
        """
        topic, msg: str or bytes. In one write. Returns at once: the packet id at QoS 1 (in
        `unacked` until the broker has it), else None. Raises OSError(-1) when not connected, as
        umqtt does, or what the socket raises.
        """
        if not self.up:
            raise OSError(-1)  # as umqtt says it
        pid = None
        packet = bytearray(2)
        packet += topic
        packet[:2] = (len(packet) - 2).to_bytes(2, "big")
        if qos:
            self.pid = pid = self.pid % _PIDS + 1
            packet += pid.to_bytes(2, "big")
            self.unacked.add(pid)
            self._ack = after(_ACK_MS)
        packet += msg
        size = len(packet)
        head = bytearray((0x30 | qos << 1 | retain,))
        while size > 127:
            head.append(size & 127 | 128)
            size >>= 7
        head.append(size)
        packet[:0] = head
        try:
            self.sock.write(packet)
        except OSError:
            self.close()
            raise
        return pid

    def check_msg(self):
        """
        One step: connect and subscribe, or take what came. Never raises for the connection: it is
        made again.
        """
        try:
            if self.up:
                sock = self.sock
                if sock.poll(0):
                    if self.wait_msg() == 0x40:  # PUBACK
                        self.unacked.discard(int.from_bytes(sock.read(3)[1:], "big"))
                    self._due = after(self.keepalive * 1500)
                if self.unacked and not left(self._ack) or not left(self._due):
                    self.close()
                elif not left(self._ping):
                    self._ping = after(self.keepalive * 500)
                    self.ping()
            elif not left(self._due):
                self.pid = 0
                call(simple, self.connect)
                for topic in self.items:
                    super().subscribe(*topic)
                self.up = after(0) | 2
                self._wait = 2000
                self._ping = after(0)
                self._due = after(self.keepalive * 1500)
        # umqtt checks replies by assert and index. What a callback raises ends the connection,
        # too: the agent's only queues.
        except Exception:
            self.close()

    def close(self):
        """Ends the connection; the next one comes later."""
        if self.sock:
            self.sock.close()
        self.up = 0
        self.unacked.clear()
        wait = self._wait
        self._wait = min(wait * 2, self.back_off_s * 1000)
        self._due = after(randrange(wait))
