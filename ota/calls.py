"""
Calls of the guidance that an application may make, and an upgrade does not need; loaded when one
is made first. Each is a method of OTA: `ota` is the agent.
"""

from . import OTAError, drop

_DIGEST = const(440)
_DESTROYED = const(471)
_ARGUMENT = const(480)
_STATE = const(481)

# States of the journal's record, see there.
_IDLE = const(0)
_FETCHING = const(2)
_DONE = const(4)

# Phases of the agent, see there.
_UNINIT = const(0)
_BEGIN = const(3)
_YIELD = const(5)

_YIELD_MS = const(200)  # one wait for data


def __enter__(ota):
    return ota


def __exit__(ota, *_):
    destroy(ota)


def destroy(ota):
    """
    Stops a download, reports it (471), forgets all. Twice is harmless. Source: the guidance, 2.
    """
    if ota._phase:
        ota.cancel(_DESTROYED)  # what does not get out now, the next start reports
        ota._in = ota._out = ota.block = ()
        if ota.on_message:
            ota._mqtt.set_callback(ota.on_message)
        ota._phase = ota._over = _UNINIT


def report_progress(ota, status, progress):
    """
    status: one of protocol.py's; progress: int, 0 to 100. Raises OTAError 480, 481.
    Source: the guidance, 3.
    """
    if type(progress) is not int or not 0 <= progress <= 100:
        raise OTAError(_ARGUMENT)
    ota._say(status, progress)


def report_firmware_version(ota, version=None):
    """
    version: str, by default the running one. Raises OTAError 480, 481. Source: the guidance, 4.
    """
    if version:
        _check(version)
    if ota.tested:
        ota._tell("version", version or ota.version)


def get_firmware_info(ota, version, product_key=None, identifier=None):
    """
    Asks for the information of a version, also on behalf of another device; the answer goes to
    on_info.

    Returns the msgId of the request, str. Raises OTAError 480, 481. Source: the guidance, 8.
    """
    if version != "":
        _check(version)
    data = {"firmwareVersion": version}
    if identifier:
        data["productKey"] = product_key
        data["identifier"] = identifier
    return ota._send("get", data, 1)


def fetch_finish(ota):
    """True when a download ended. Source: the guidance, 6."""
    return bool(ota._over)


def fetch_yield(ota, buf, timeout_s):
    """
    Downloads into the caller's buffer, for who wants the bytes and not the upgrade: no flash is
    written.

    buf: bytearray; timeout_s: int, for this call. Returns bytes read (> 0), 0 when none came
    in time, -1 when the download is complete and its digest right, else -code. Raises OTAError
    481 while poll() does the upgrade, or when there is nothing to download. Source: the
    guidance, 7.
    """
    from .download import Download
    from .stream import after, left

    end = after(timeout_s * 1000)
    ota._handle()
    journal = ota._log
    if ota._phase == _BEGIN and journal.state != _DONE:
        journal.start(ota._cmd, _FETCHING)
        ota._job = Download(ota, ota._cmd, 0)
        ota._phase = _YIELD
        ota._cmd = journal
        ota._over = False
        ota._say("downloading", 0)
    if ota._phase != _YIELD:
        raise OTAError(_STATE)
    view = memoryview(buf)
    job = ota._job
    try:
        while True:
            n = job.readinto(view, len(buf), _YIELD_MS)
            if n > 0:
                job.digest.update(view[:n])
            elif n:
                if job.digest.digest().hex() != journal.sign:
                    raise OTAError(_DIGEST)
                journal.write(_IDLE)
                ota._end()
            if n or not left(end):
                return n
    except OTAError as e:
        ota.cancel(e.code, e.detail)
        return -e.code


def _check(version):
    from .protocol import is_text

    drop("protocol")
    if not is_text(version, "._-", 100):
        raise OTAError(_ARGUMENT)


# What the agent looks in: an AttributeError for what is not here.
all = type("", (), globals())
