"""
Runs the test cases of one module: the MicroPython side of tools/mpytest.py.

Brings its own loop: that of `unittest` 0.4 does not catch an error in setUp, shares one object
among all tests of a class, and is content when there is no test at all.
"""

import gc
import sys
import unittest


def run(name):
    """
    Runs every test of that module and prints what came of it.

    name: str, as for import. Returns (passed, failed, skipped). Raises what the import raises.
    """
    counts = {"ok": 0, "FAIL": 0, "SKIP": 0}
    module = __import__(name)
    for class_name in sorted(dir(module)):
        cls = getattr(module, class_name)
        if isinstance(cls, type) and issubclass(cls, unittest.TestCase):
            for method in sorted(dir(cls)):
                if method.startswith("test"):
                    outcome, why = _run_one(cls, method)
                    counts[outcome] += 1
                    print("%s %s.%s %s" % (outcome, class_name, method, why))
                    gc.collect()
    return counts["ok"], counts["FAIL"], counts["SKIP"]


def _run_one(cls, method):
    # Returns (outcome, reason). tearDown runs when setUp came through, as in Python's own.
    case = cls()
    outcome = _call(getattr(case, "setUp", None))
    if outcome[0] == "ok":
        outcome = _call(getattr(case, method))
        ended = _call(getattr(case, "tearDown", None))
        if ended[0] == "FAIL":
            outcome = ended
    return outcome


def _call(step):
    if step:
        try:
            step()
        except unittest.SkipTest as e:
            return "SKIP", e.args[0] if e.args else ""
        except (Exception, SystemExit) as e:  # a test that calls sys.exit() has failed as well
            sys.print_exception(e)
            return "FAIL", ""
    return "ok", ""


def main(name):
    """Runs the module and ends the process. Exit status 0: at least one test, and none failed."""
    passed, failed, skipped = run(name)
    print("RESULT %d %d %d" % (passed, failed, skipped))
    sys.exit(1 if failed or not passed + skipped else 0)
