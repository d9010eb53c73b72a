"""
The agent: takes commands, answers, reports, and does the upgrade in slices while the application
goes on.

The MQTT callback only queues; work happens in poll(). What an upgrade needs (download.py, slot.py)
is loaded when one starts. Never prints, never waits. Source: the guidance (the eight calls);
docs/protocol.md (device rules).
"""

import json
from random import getrandbits

import machine

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
_LEAVE_MS = const(10000)  # at most, for the last messages before the restart


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
    #: a machine.WDT that poll() feeds
    wdt = None
    #: ticks, when the next step of the present phase is due
    due = 0
    #: an image on trial: None = has not reached MQTT, False = has, but the self-test did not pass
    #: yet
    tested = True

    # what the agent is at; the platform has our version; a download ended
    _phase = _told = _over = _UNINIT
    _up = 1
    # packet id of the message under way; msgId of our last empty get; the sign that was begun
    # before this start, or before its URL ran out
    _pid = _get = _kept = None
    # what is at work: Command or Journal; Upgrade or Download; a function that _work() calls
    # besides: the trial's, or that of late.py
    _cmd = _job = _also = None
    _note = ""

    def __init__(
        self, product_key, device_name, mqtt_client, identifier=None, version="0", **settings
    ):
        identifier = identifier or device_name
        # The one large buffer, made while the heap is in one piece: after weeks it may not be.
        self.block = memoryview(bytearray(4096))

        from .protocol import PREFIX, is_text

        for text in (product_key, device_name, identifier):
            if not is_text(text, "._-:@", 64):
                raise OTAError(_ARGUMENT)
        self.on_message = getattr(mqtt_client, "cb", None)
        for name in settings:
            if not hasattr(OTA, name):
                raise OTAError(_ARGUMENT)
            setattr(self, name, settings[name])
        self._mqtt = mqtt_client
        self._phase = _READY
        self._base = PREFIX % (product_key, identifier)
        del is_text  # it would keep its file
        drop("protocol")

        from .journal import Journal
        from .trial import begin

        self._in = []
        self._out = []
        self._log = journal = Journal().load()
        if begin(self, journal, version):
            self._cmd = journal
            self._phase = _TRIAL
        # What to go on with, as soon as the platform tells the URL again.
        elif _WAITING <= journal.state <= _SWITCHING:
            self._kept = journal.sign
        drop("trial")
        mqtt_client.set_callback(self._hear)
        try:
            for name in ("upgrade", "get_reply"):
                mqtt_client.subscribe(self._base + name, 1)
        except Exception:  # umqtt's own exceptions have no common class
            self.destroy()
            raise OTAError(_MQTT)
        if not hasattr(mqtt_client, "up"):
            self.connected()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.destroy()

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
        else:
            journal.take(self._cmd, _FETCHING)
        self._kept = None
        journal.code = code
        journal.save(_DONE)
        self._note = str(detail)
        self._end()

    def __getattr__(self, name):  # a call that few applications make
        from .calls import bound

        return bound(self, name)

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
            if not asked and topic != (self._base + "upgrade").encode():
                if self.on_message:
                    self.on_message(topic, msg)
                continue
            msg_id = ""
            try:
                from .protocol import command, decode

                msg_id, code, data = decode(msg)
                if asked:
                    if msg_id != self._get:
                        if self.on_info:
                            self.on_info(msg_id, code, data)
                        continue
                    self._get = None
                    if not data:  # 404: nothing waits for us
                        continue
                code = self._judge(command(msg_id, data, asked), asked)
            except OTAError as e:
                code = e.code
            self._send("upgrade_reply", {}, 1, msg_id, code)
            drop("protocol")
        self._pump()

    def _judge(self, cmd, asked):
        # Takes a command on, or not. Returns the code to answer.
        journal = self._log
        phase = self._phase
        if phase >= _BEGIN:
            if self._cmd.version != cmd.version:
                return _PENDING if phase == _TRIAL else _BUSY
            if not asked:  # so that a copy of it will not be new
                self._cmd.msg_id = cmd.msg_id
            return _ACCEPTED
        if journal.code and (cmd.msg_id == journal.msg_id or asked and cmd.sign == journal.sign):
            return _FAILED_BEFORE
        self._cmd = cmd
        if cmd.sign == self._kept:
            if asked:
                cmd.msg_id = journal.msg_id
        else:
            self._kept = None
            if cmd.silent and cmd.version != self.version:
                self._phase = _ASK
                self.due = after(0)
                return _LATER
        self._phase = _BEGIN
        return _ACCEPTED

    # Messages out

    def _send(self, name, data, qos, msg_id=None, code=None):
        if not self._phase:
            raise OTAError(_STATE)
        if msg_id is None:
            msg_id = str(getrandbits(30))
        message = {"msgId": msg_id, "version": "1.0", "data": data}
        if code:
            message["code"] = code
        item = (name, json.dumps(message).encode(), qos)
        if code or item not in self._out:
            self._out.append(item)
        del self._out[_OUTBOX_MAX:]  # what was left out is told after the next connection
        self._pump()
        return msg_id

    def _tell(self, name, version):
        return self._send(name, {"firmwareVersion": version}, 1)

    def _say(self, status, progress):
        journal = self._log
        data = {
            "firmwareVersion": journal.version or self.version,
            "status": status,
            "progress": progress,
        }
        if status == "failed":
            data["code"] = journal.code
            data["message"] = self._note
        self._send("progress", data, status in ("succeeded", "failed"), journal.msg_id or None)
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
                self._log.save(_TOLD if self._log.code else _IDLE)

    # The upgrade

    def _work(self):
        journal = self._log
        phase = self._phase
        late = not left(self.due)
        if self._also and self._also(self, journal):  # confirmed
            self.tested = True
            self._end()
            self.connected()
        elif phase == _LEAVE:
            if late or not self._out:
                machine.reset()
        elif phase == _RUN:
            progress = self._job.step()
            if progress > 95:
                self._say("verifying", 96)
                self._job.switch()
                self._phase = _LEAVE
                self._over = True
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
                        journal.take(cmd, _WAITING)
                elif self.on_silent(cmd) and self._cmd:
                    self._phase = _BEGIN
            elif phase == _BEGIN:
                if cmd.version == self.version:  # nothing to do
                    journal.take(cmd, _DONE)
                    self._tell("version", self.version)  # it may have been lost behind the broker
                    self._end()
                else:
                    drop("slot")
                    from .download import Upgrade

                    self._job = Upgrade(self, cmd, journal)
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
