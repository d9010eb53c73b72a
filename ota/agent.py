"""
The agent: takes commands, answers, reports, and does the upgrade in slices while the application
goes on.

The MQTT callback only queues; work happens in poll(). What is needed seldom, or by an upgrade
alone, is loaded for that. Never prints, never waits. Source: the guidance (the eight calls);
docs/protocol.md (device rules).
"""

import json
from hashlib import md5
from random import getrandbits

import machine
from esp32 import NVS

from . import OTAError, drop
from .stream import after, left

_ACCEPTED = const(200)
_LATER = const(202)
_BUSY = const(413)
_FAILED_BEFORE = const(415)
_PENDING = const(416)
_MEMORY = const(436)
_READ_BACK = const(452)
_CANCELLED = const(470)
_DESTROYED = const(471)
_ARGUMENT = const(480)
_STATE = const(481)
_MQTT = const(482)

# States of the journal's record, see there.
_IDLE = const(0)
_WAITING = const(1)
_FETCHING = const(2)
_SWITCHING = const(3)
_DONE = const(4)
_TOLD = const(5)

# What the agent is at.
_UNINIT = const(0)
_READY = const(1)
_ASK = const(2)  # a silent upgrade waits for the application's word
_BEGIN = const(3)  # from here on another command is refused: busy
_RUN = const(4)  # poll() downloads
_YIELD = const(5)  # fetch_yield() downloads
_TRIAL = const(6)  # the running image must prove itself; from here on nothing can be cancelled
_LEAVE = const(7)  # the restart comes

# messages between two calls of poll(); more are dropped, and asked for after the next connection
_QUEUE_MAX = const(8)
_OUTBOX_MAX = const(16)
_ASK_MS = const(60000)  # between two questions to on_silent
_VERSION = const("firmwareVersion")
_LEAVE_MS = const(10000)  # at most, for the last messages before the restart


class Journal:
    """
    The record. state: int; code: int, why it failed, 0 = did not; progress: int, where it stopped;
    slot: int, subtype of the slot that is written; units: int, how many 64 KiB are in it; late:
    int, the slot that was confirmed last and how many crashes it still has, see late.py; msg_id,
    version, sign: str, of the command; v16, v17, ...: str, the version of the image in that slot
    behind the 16 hex digits that tell its build.
    """

    # What is in NVS.
    state = code = progress = slot = units = turn = late = 0
    msg_id = version = sign = up = base = ""

    def write(self, state, units=None):
        """
        Writes the record with a new state. Or, while it stays the same, a note beside it: how far
        a download came. That is one number, the record is many.
        """
        self.state = state
        try:
            nvs = NVS("ota")
            if units:
                nvs.set_i32("units", (self.turn & 1023) << 10 | units)
            else:
                self.turn += 1
                nvs.set_blob("ab"[self.turn & 1], json.dumps(self.__dict__))
            nvs.commit()
        except OSError:
            pass

    def start(self, cmd, state, slot=0, units=0):
        """Begins the record of a command that is taken on, and writes it."""
        self.code = self.progress = 0
        self.slot = slot
        self.units = units
        self.msg_id = cmd.msg_id
        self.version = cmd.version
        self.sign = cmd.sign
        self.write(state)


class OTA:
    """
    The agent of one device.

    product_key, device_name, identifier: str, 1 to 64 of A-Z a-z 0-9 . _ - : @; identifier
    defaults to device_name; mqtt_client: anything with publish, subscribe, set_callback, check_msg
    of umqtt, best a Link; version: str, told when the image itself says none. on_silent(command)
    -> bool: may a silent upgrade begin now? Asked again every minute until True; without it: at
    the next start. self_test() -> True, False, None (not yet): see Trial. on_message(topic, msg):
    what is not ours; defaults to the callback that the client had. on_info(msg_id, code, data):
    the answer to get_firmware_info. settings: the class attributes below. Raises OTAError 480,
    482.
    """

    #: report progress when it grew by this many percent ...
    progress_percent = 5
    #: ... and this many seconds went by
    progress_s = 5
    #: connections in a row that bring nothing before a download is given up
    tries = 5
    #: seconds without a byte before a connection is given up
    stall_s = 30
    #: seconds that a whole download may take
    total_s = 3600
    #: seconds in which a new image must prove itself
    trial_s = 300
    #: seconds after a start in which a crash counts, see late.py; 0 = never
    late_s = 600
    #: called, see above
    on_silent = self_test = on_message = on_info = None
    #: a Trust: who may, see there
    trust = None
    #: makes what the digest of a download is fed to
    hash = md5
    #: a machine.WDT that poll() feeds
    wdt = None

    def __init__(
        self, product_key, device_name, mqtt_client, identifier=None, version="0", **settings
    ):
        # A block and 512 bytes, made while the heap is in one piece: after weeks it may not be.
        self.block = memoryview(bytearray(4608))
        # So are the other attributes: a dict that grows needs room in one piece.
        # What the agent is at; the platform has our version; a download ended; when the next step
        # of the present phase is due, ticks.
        self._phase = self._told = self._over = self.due = _UNINIT
        self._up = 1
        # An image on trial: None = has not reached MQTT, False = has, but the self-test did not
        # pass yet.
        self.tested = True
        # Packet id of the message under way; msgId of our last empty get; the sign that was begun
        # before this start, or before its URL ran out.
        self._pid = self._get = self._kept = None
        # What is at work: Command or Journal; Upgrade or Download; a function that _work() calls
        # besides: the trial's, or that of late.py.
        self._cmd = self._job = self._also = None
        self._note = ""
        self._in = []
        self._out = []

        from .protocol import base

        self._base = base(product_key, identifier or device_name, device_name)
        del base  # it would keep its file
        drop("protocol")

        from .slot import start

        self._mqtt = mqtt_client
        self._log = Journal()
        start(self, version, settings)
        del start
        drop("slot")

    def cancel(self, code=_CANCELLED, detail=0):
        """
        Stops a download or a waiting upgrade, and reports it with code (and the errno or HTTP
        status behind it): so ends one that failed, too. Nothing to stop: nothing happens.
        """
        if not _READY < self._phase < _TRIAL:
            return
        journal = self._log
        if self._phase == _RUN and detail in (401, 403, 410) and self._job.done and not self._kept:
            # The URL ran out. Once, the platform is asked for a new one, and its answer takes this
            # up.
            self._kept = journal.sign
            self._end()
            self._get = self._tell("get", "")
            return
        if self._job:
            journal.progress = self._job.progress
        elif self._phase < _RUN:
            journal.start(self._cmd, _FETCHING)
        self._kept = None
        journal.code = code
        journal.write(_DONE)
        self._note = str(detail)
        self._end()

    def __getattr__(self, key):  # a call that few applications make
        from .calls import all

        call = getattr(all, key)
        return lambda *args, **items: call(self, *args, **items)

    def is_fetching(self):
        """True while a download runs. Source: the guidance, 5."""
        return _RUN <= self._phase <= _YIELD

    def poll(self):
        """
        One slice of work: at most 1 s in a download, 5 s when something connects. Call it all the
        time.

        Raises OTAError 481 after destroy(); OSError of a client that is no Link: connect it again,
        then call connected().
        """
        if not self._phase:
            raise OTAError(_STATE)
        if self.wdt:
            self.wdt.feed()
        client = self._mqtt
        end = after(1000)
        client.check_msg()
        session = getattr(client, "up", 1)
        if session and session != self._up:
            self._pid = None
            self.connected()
            self._up = session
        self._handle()
        if left(end):
            try:
                self._work()
            except MemoryError:
                drop("download")  # to have room for the end of it
                self.cancel(_MEMORY)
            except OSError:  # the flash cannot be read
                self.cancel(_READ_BACK)
            except OTAError as e:
                self.cancel(e.code, e.detail)

    def connected(self):
        """
        After every (re)connection: what the platform must know, and what we may have missed. With
        a Link, poll() calls it itself.
        """
        if not self.tested:
            self.tested = False
            return
        if not self._told:
            self._tell("version", self.version)
        self._ended()
        self._get = self._tell("get", "")

    # Messages in

    def _hear(self, *data):  # topic, message
        if self._phase and len(self._in) < _QUEUE_MAX:
            self._in.append(data)

    def _handle(self):
        while self._in:
            topic, msg = self._in.pop(0)
            asked = topic == (self._base + "get_reply").encode()
            if asked or topic == (self._base + "upgrade").encode():
                drop()
                from .protocol import read

                read(self, msg, asked)
                del read  # it would keep its file
                drop("protocol")
            elif self.on_message:
                self.on_message(topic, msg)
        self._pump()

    # Messages out

    def _send(self, key, data, qos, msg_id=None, code=None):
        if not self._phase:
            raise OTAError(_STATE)
        if msg_id is None:
            msg_id = str(getrandbits(30))
        message = {"msgId": msg_id, "version": "1.0", "data": data}
        if code:
            message["code"] = code
        item = (key, json.dumps(message).encode(), qos)
        if code or item not in self._out:
            self._out.append(item)
        del self._out[_OUTBOX_MAX:]  # what was left out is told after the next connection
        self._pump()
        return msg_id

    def _tell(self, key, version):
        return self._send(key, {_VERSION: version}, 1)

    def _say(self, status, progress):
        journal = self._log
        data = {
            _VERSION: journal.version or self.version,
            "status": status,
            "progress": progress,
        }
        if status == "failed":
            data["code"] = journal.code
            data["message"] = self._note
        self._send("progress", data, status[-2:] == "ed", journal.msg_id or None)
        if self._phase == _RUN:
            journal.progress = progress
            self.due = after(self.progress_s * 1000)

    def _ended(self):
        # Reports how it ended, if the platform does not know yet.
        journal = self._log
        if journal.state == _DONE:
            if journal.code:
                self._say("failed", journal.progress)
            else:
                self._say("succeeded", 100)

    def _pump(self):
        # Sends what waits: one message of QoS 1 at a time.
        client = self._mqtt
        while self._out and getattr(client, "up", 1) == self._up:
            name, text, qos = self._out[0]
            if not self._pid:
                try:
                    self._pid = client.publish(self._base + name, text, False, qos)
                except OSError:
                    return  # kept; the connection is the client's affair
            if self._pid and self._pid in client.unacked:
                return
            self._pid = None
            self._out.pop(0)
            if name == "version":
                self._told = True
            elif name == "progress" and qos and self._log.state == _DONE:
                self._log.write(_TOLD if self._log.code else _IDLE)

    # The upgrade

    def _work(self):
        journal = self._log
        phase = self._phase
        late = not left(self.due)
        if self._also and self._also(self, journal):  # confirmed
            self.tested = True
            self._end()
            self.connected()
        elif phase == _LEAVE and (late or not self._out):
            machine.reset()
        elif phase == _RUN:
            progress = self._job.step()
            if progress > 95:
                self._say("verifying", 96)
                part = self._job.slot.part
                self._job = None
                drop("download")
                from .slot import switch

                switch(part, journal)
                self._over = self._phase = _LEAVE
                self._say("burning", 97)
                self._say("restarting", 98)
                self.due = after(_LEAVE_MS)
            elif progress - journal.progress >= self.progress_percent and late:
                self._say("downloading", progress)
        # An outcome that the platform does not have yet must not be written over.
        elif journal.state != _DONE:
            cmd = self._cmd
            if phase == _ASK and late:
                self.due = after(_ASK_MS)
                if not self.on_silent:
                    if journal.msg_id != cmd.msg_id:
                        journal.start(cmd, _WAITING)
                elif self.on_silent(cmd) and self._cmd:
                    self._phase = _BEGIN
            elif phase == _BEGIN:
                if cmd.version == self.version:  # nothing to do
                    journal.start(cmd, _DONE)
                    self._tell("version", self.version)  # it may have been lost behind the broker
                    self._end()
                else:
                    drop()
                    from .slot import other

                    spare = other()
                    del other  # it would keep its file
                    drop("slot")
                    from .download import Upgrade

                    self._job = Upgrade(self, cmd, journal, spare)
                    self._phase = _RUN
                    self._cmd = journal  # it has all that is still needed
                    self._over = False
                    self._say("downloading", 0)

    def _end(self):
        # Nothing is at work any more.
        if self._job:
            self._job.close()
            self._over = True
        self._cmd = self._job = None
        self._phase = _READY
        self._ended()
