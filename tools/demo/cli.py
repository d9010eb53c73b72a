"""
python -m tools demo: three simulated devices are upgraded by the local platform, and one rolls
back. Exit status 0 only if all of it came true.
"""

import argparse
import contextlib
import faulthandler
import signal
import sys
import tempfile
from pathlib import Path

from . import story
from .verdict import judge
from .view import View

DEADLINE = 180  # seconds, for all of it
_LAST = 60  # more seconds, to end the devices and to clean up


def main(argv: list[str]) -> int:
    """Exit status: 0 all of it came true, 1 not so, 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m tools demo", description=__doc__)
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=18,
        metavar="N",
        help="how long a download takes, 2 to 60 (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    view = View()
    try:
        with _deadline(), tempfile.TemporaryDirectory(prefix="ota-demo-") as folder:
            facts = story.play(Path(folder), args.seconds, view)
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        print(f"demo: {error}", file=sys.stderr)
        return 1
    checks = judge(facts)
    view.end(facts, checks)
    return 0 if all(check.true for check in checks) else 1


def seconds(text: str) -> float:
    value = float(text)
    if not 2 <= value <= 60:  # less: the cut would come too late; more: the deadline too early
        raise argparse.ArgumentTypeError("2 to 60 are possible")
    return value


@contextlib.contextmanager
def _deadline():
    """What runs in it ends in time: by TimeoutError, so that it cleans up; else at once."""
    faulthandler.dump_traceback_later(DEADLINE + _LAST, exit=True, file=2)
    before = [
        signal.signal(signal.SIGALRM, _too_late),
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)),  # cleans up, too
    ]
    signal.alarm(DEADLINE)
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in zip((signal.SIGALRM, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
        faulthandler.cancel_dump_traceback_later()


def _too_late(*_) -> None:
    raise TimeoutError(f"not over within {DEADLINE} s")
