"""Seeded bugs of what decides and reports: trial, late, agent, link, the guard of boot.py."""

from .bug import Bug

AGENT = (
    Bug(
        "the version is told before the confirmation",
        "ota/slot.py",
        "            code = _SWITCH\n",
        "            code = _SWITCH\n            ota.tested = True\n            ota.connected()\n",
        ("cut/2/{confirm}/random", "cut/2/{confirm-1}/before"),
    ),
    Bug(
        "an image confirms itself without having reached the platform",
        "ota/slot.py",
        "if ota.tested is False:",
        "if not ota.tested:",
        ("network/0/wifi/trial/away",),
    ),
    Bug(
        "a trial has no deadline",
        "ota/slot.py",
        "    late = not left(ota.due)\n",
        "    late = False\n",
        ("network/0/broker/trial/away",),
    ),
    Bug(
        "a confirmation is not read back",
        "ota/slot.py",
        "if record[:2] == (_VALID, ",
        "if record[1] in (0, ",
        ("flash/0/{confirm}/stuck:192",),
    ),
    Bug(
        "a self-test that raises is passed",
        "ota/slot.py",
        "            except Exception:\n                good = False\n",
        "            except Exception:\n                pass\n",
        ("trial/0/once/exception/test 1",),
    ),
    Bug(
        "a rollback has no code, so that it is told as a success",
        "ota/slot.py",
        "                journal.code = journal.code or _NOT_STARTED\n",
        "",
        ("trial/1/once/reset/init", "trial/0/once/cut/boot"),
    ),
    Bug(
        "a success is not told when the power went right behind the confirmation",
        "ota/slot.py",
        "(journal.slot == here or journal.code)",
        "journal.code",
        ("second/0/{confirm+1}/{confirm+4}/before/succeeds", "cut/0/{confirm+2}/before"),
    ),
    Bug(
        "an image of another version than announced is confirmed",
        "ota/slot.py",
        "            code = _OTHER_VERSION\n            good = False\n",
        "            pass\n",
        ("records/0/trial/other-switching-here",),
    ),
    Bug(
        "a copy of a command that failed is taken again",
        "ota/protocol.py",
        "(cmd.msg_id == journal.msg_id or get and ",
        "(get and ",
        ("broker/scripted/retained/bad/2",),
    ),
    Bug(
        "an outcome is taken for told before its PUBACK",
        "ota/agent.py",
        "            if self._pid and self._pid in client.unacked:\n                return\n",
        "",
        ("broker/scripted/lost-outcome/0", "broker/scripted/lost-outcome/3"),
    ),
    Bug(
        "a command in a trial is refused as in a download",
        "ota/protocol.py",
        "return _PENDING if phase == _TRIAL else _BUSY",
        "return _BUSY",
        ("hostile/trial/0",),
    ),
    Bug(
        "no new URL is asked for when the old one is forbidden",
        "ota/agent.py",
        "and detail in (401, 403, 410)",
        "and detail in (401, 410)",
        ("http/0/small/403 once, resumed",),
    ),
    Bug(
        "too little memory ends the application, not the upgrade",
        "ota/agent.py",
        "            except MemoryError:\n"
        '                drop("download")  # to have room for the end of it\n'
        "                self.cancel(_MEMORY)\n",
        "",
        ("memory/88512", "memory/86080", "memory/89600", "memory/85504"),
    ),
    Bug(
        "a PUBACK that does not come is waited for without an end",
        "ota/stream.py",
        "if self.unacked and not left(",
        "if not self.up and not left(",
        ("broker/scripted/lost-puback/start/0",),
    ),
    Bug(
        "only the first connection subscribes",
        "ota/stream.py",
        "                    super().subscribe(*topic)\n",
        "                    if topic not in getattr(self, 'known', ()):\n"
        "                        super().subscribe(*topic)\n"
        "                    self.known = getattr(self, 'known', ()) + (topic,)\n",
        ("broker/scripted/takeover/outcome/3", "broker/scripted/takeover/outcome/0"),
    ),
    Bug(
        "garbage of the broker ends the application",
        "ota/stream.py",
        "        except Exception as e:\n",
        "        except OSError as e:\n",
        ("broker/scripted/garbage/http/in-trial/1",),
    ),
    Bug(
        "nothing is sent while nothing is to be said",
        "ota/stream.py",
        "                    self.ping()\n",
        "",
        ("time/1/wrap/idle/250",),
    ),
    Bug(
        "a power cut counts as a crash",
        "ota/late.py",
        "machine.reset_cause() in (2, 3)",
        "machine.reset_cause() in (1, 2, 3)",
        ("late/0/power/3",),
    ),
    Bug(
        "a confirmed image is watched without an end",
        "ota/late.py",
        " or not left(ota.calm):",
        ":",
        ("late/0/calm/3",),
    ),
    Bug(
        "two crashes are enough to go back",
        "ota/late.py",
        "_LIVES = const(4)",
        "_LIVES = const(3)",
        ("late/0/exception/2",),
    ),
    Bug(
        "the guard never starts the watchdog",
        "boot.py",
        "if newest[1] == 1 and",
        "if newest[1] == 9 and",
        ("trial/1/always/busy/import ota",),
    ),
    Bug(
        "the guard reads one boot record",
        "boot.py",
        "for sector in (0, 1):",
        "for sector in (0,):",
        ("trial/0/always/busy/import ota.stream",),
    ),
)
