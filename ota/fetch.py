"""
The guidance's seventh call, for who wants the bytes of a firmware and not the upgrade. Loaded when
it is called first.
"""

from .download import Download
from .protocol import OTAError
from .stream import after, left

_DIGEST = const(440)
_STATE = const(481)

# States of the journal's record, see there.
_IDLE = const(0)
_FETCHING = const(2)
_DONE = const(4)

# Phases of the agent, see there.
_BEGIN = const(3)
_YIELD = const(5)

_YIELD_MS = const(200)  # one wait for data


def fetch_yield(ota, buf, timeout_s):
    """See OTA.fetch_yield."""
    end = after(timeout_s * 1000)
    ota._handle()
    journal = ota._log
    if ota._phase == _BEGIN and journal.state != _DONE:
        journal.take(ota._cmd, _FETCHING)
        ota._job = Download(ota, ota._cmd, 0)
        ota._run(_YIELD)
    if ota._phase != _YIELD:
        raise OTAError(_STATE)
    try:
        while True:
            n = ota._job.readinto(memoryview(buf), _YIELD_MS)
            if n < 0:
                if not ota._job.right():
                    raise OTAError(_DIGEST)
                journal.save(_IDLE)
                ota._end()
            if n or not left(end):
                return n
    except OTAError as e:
        ota.cancel(e.code, e.detail)
        return -e.code
