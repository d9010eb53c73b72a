"""
The course of one device in a batch: which status follows which, with what remark, and when a wait
ends.

Pure functions that change a Task; the caller compares before and after, and stores it. Each takes
the task, its batch and the time. Source: docs/protocol.md; where that leaves a choice, the comment
says (ours).

  To be Pushed -> Pushed -> To be Upgraded -> Upgrading -> Succeeded
                    |             |              |
                    +-------------+--------------+--> To be Retried -> Pushed, with the next msgId
                                                 +--> Failed

Succeeded -> Failed, when the device went back later.
"""

from tools.platform import model, wire
from tools.platform.model import Batch, Task

REPLY_S = 10.0  # the reply to a command must come in this time, or its remark is Push Failed

WAITS_FOR_DEVICE = (model.PUSHED, model.TO_BE_UPGRADED, model.UPGRADING)
WAITS_FOR_US = (model.TO_BE_PUSHED, model.TO_BE_RETRIED)

# The remark of a failure, by the tens of its code. The only place that knows.
_REMARKS = {
    41: model.PUSH_FAILED,
    42: model.VERIFICATION_FAILED,
    43: model.DOWNLOAD_FAILED,
    44: model.VERIFICATION_FAILED,
    45: model.BURN_FAILED,
    46: model.BURN_FAILED,
    47: model.TASK_ABORTED,
    49: model.DOWNLOAD_FAILED,
}


def remark_of(code: int | None, progress: int) -> str:
    """
    The remark of a failure. code: as reported, or None; progress: 0 to 100, judges where the code
    says nothing (ours).
    """
    if code is not None and code // 10 in _REMARKS:
        return _REMARKS[code // 10]
    if progress <= 95:
        return model.DOWNLOAD_FAILED
    return model.VERIFICATION_FAILED if progress == 96 else model.BURN_FAILED


def comes_back(task: Task, batch: Batch, now: float) -> bool:
    """
    True for one that Push Failed, but may be Pushed again by its own `get`, while the batch is
    valid.
    """
    return (
        task.remark == model.PUSH_FAILED
        and task.status in (model.FAILED, model.TO_BE_RETRIED)
        and now < batch.ends
        and not batch.aborted
    )


def tells_of_firmware(task: Task) -> bool:
    """
    True for one that Failed, and not for want of an answer: a device that is away says nothing
    about the firmware.
    """
    return task.status == model.FAILED and (
        task.code is not None or task.remark not in (model.PUSH_FAILED, model.TASK_ABORTED)
    )


def hears(task: Task, batch: Batch, now: float) -> bool:
    """
    True while what the device says counts. Also after Push Failed, when nothing had been heard of
    it: that was the platform's own guess, and a late answer is no contradiction (ours).
    """
    return task.status in WAITS_FOR_DEVICE or (comes_back(task, batch, now) and task.code is None)


def waits_for_get(task: Task, batch: Batch, now: float) -> bool:
    """True when an empty `get` of the device brings this task to it."""
    if batch.aborted:
        # It was told of this one and may have lost power since: "one that runs ends by its version
        # report".
        return task.status in (model.TO_BE_UPGRADED, model.UPGRADING)
    return (
        task.status == model.TO_BE_PUSHED
        or task.status in WAITS_FOR_DEVICE
        or comes_back(task, batch, now)
        or _timed_out(task)
    )


def pushed(task: Task, now: float, asked: str = "", reply_s: float = REPLY_S):
    """
    The command is on its way. asked: msgId of the `get` that it answers, "" = the platform sends
    it by itself.

    A retry is a new attempt, so that its msgId is new. A `get` after Push Failed is none: that
    command never arrived.
    """
    if task.status == model.TO_BE_RETRIED and (not asked or _timed_out(task)):
        task.attempt += 1
    task.asked = asked
    if task.status in (model.TO_BE_UPGRADED, model.UPGRADING):
        return  # it only asks for the URL once again
    task.progress = 0
    _set(task, model.PUSHED, now + reply_s)


def accepted(task: Task, batch: Batch, now: float):
    """The reply came. The device time-out does not run yet; the validity of the batch does."""
    if task.status not in (model.TO_BE_UPGRADED, model.UPGRADING):
        _set(task, model.TO_BE_UPGRADED, batch.ends)


def refused(task: Task, batch: Batch, now: float, code: int, message: str):
    """
    The reply came, with a reason. One that runs already is not stopped by it: an outcome is never
    contradicted. But when it is told that the image failed there before, the outcome was lost
    (ours).
    """
    if task.status != model.UPGRADING or code == wire.FAILED_BEFORE:
        failed(task, batch, now, code, message)


def progressed(task: Task, batch: Batch, now: float, progress: int):
    """progress: 0 to 100. The first one starts the device time-out."""
    task.progress = progress
    if task.status != model.UPGRADING:
        _set(task, model.UPGRADING, now + batch.timeout_s)


def succeeded(task: Task):
    """The device told the target version: the only thing that makes a success."""
    task.progress = 100
    _set(task, model.SUCCEEDED, None)


def failed(
    task: Task, batch: Batch, now: float, code: int | None, message: str = "", remark: str = ""
):
    """This attempt has failed: retry, or rest. remark: "" = by the code and task.progress."""
    remark = remark or remark_of(code, task.progress)
    if batch.aborted:
        _set(
            task, model.FAILED, None, model.TASK_ABORTED if code is None else remark, code, message
        )
    elif task.attempt < batch.retries and now + batch.interval_s < batch.ends:
        _set(task, model.TO_BE_RETRIED, now + batch.interval_s, remark, code, message)
    else:
        _set(task, model.FAILED, None, remark, code, message)


def went_back(task: Task, code: int, message: str = ""):
    """
    The image crashed after all, and the device went back. No retry (ours): it would bring the same
    image.
    """
    _set(task, model.FAILED, None, remark_of(code, task.progress), code, message)


def aborted(task: Task, batch: Batch, now: float):
    """The batch was aborted: who is not Pushed yet stops; who runs ends by itself."""
    if task.status in WAITS_FOR_US:
        _set(task, model.FAILED, None, model.TASK_ABORTED)
    elif task.status == model.TO_BE_UPGRADED:
        task.due = now + batch.timeout_s  # (ours) "never comes" needs an end


def retry(task: Task, batch: Batch, now: float):
    """Somebody asks for one attempt more of one that Failed, above those of the batch."""
    _set(task, model.TO_BE_RETRIED, now, task.remark, task.code, task.message)


def overdue(task: Task, batch: Batch, now: float) -> bool:
    """The wait of this task is over. Returns True when the command is to be sent now."""
    if task.status in WAITS_FOR_US:
        if batch.aborted:  # the platform ended in the middle of an abort
            aborted(task, batch, now)
            return False
        if now < batch.ends:
            return True
        _set(task, model.FAILED, None, task.remark or model.PUSH_FAILED, task.code, task.message)
    elif task.status == model.PUSHED:
        failed(task, batch, now, None, remark=model.PUSH_FAILED)
    elif task.status in WAITS_FOR_DEVICE:
        failed(task, batch, now, None, remark=model.TIME_OUT)
    return False


def _timed_out(task):
    # The device is back and reported no failure: its retry comes early (ours).
    return task.status == model.TO_BE_RETRIED and task.remark == model.TIME_OUT


def _set(task, status, due, remark="", code=None, message=""):
    task.status, task.due = status, due
    task.remark, task.code, task.message = remark, code, message
