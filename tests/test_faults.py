"""The fault campaign itself: its seeded bugs, its report, cases whose fault does not come."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tools.faults import cli, linkfaults, mutants, report, runner
from tools.faults.bugs import BUGS, Bug
from tools.faults.check import SUCCEEDED
from tools.faults.groups import GROUPS
from tools.faults.mutants import Hunt
from tools.faults.report import Campaign, Tally
from tools.faults.scene import SCENES, UNITS
from tools.faults.upgrade import play
from tools.faults.world import Failed
from tools.toolchain import ROOT

# Seeded bugs


def test_bugs_fit_the_code():
    names = {bug.name for bug in BUGS}
    assert len(names) == len(BUGS)
    for bug in BUGS:
        text = (ROOT / bug.file).read_text(encoding="ascii")
        assert text.count(bug.old) == 1, bug.name
        assert bug.old != bug.new, bug.name
        assert bug.cases, bug.name
        for case in bug.cases:
            assert case.split("/")[0] in GROUPS, f"{bug.name}: {case}"


def test_every_class_catches_a_bug():
    first = {bug.cases[0].split("/")[0] for bug in BUGS}
    assert first == set(GROUPS)


def test_no_change_is_not_caught():
    text = 'seq, _, state, crc = unpack("<I20sII", entry)'
    same = Bug("nothing", "ota/slot.py", text, text, ("cut/0/30/before",))
    assert not mutants.is_caught(same)


def test_change_that_breaks_all_is_caught():
    text, broken = "part.writeblocks(block, image, 0)", "raise OTAError(450)"
    broken = Bug("all", "ota/download.py", text, broken, ("cut/0/30/before",))
    assert mutants.is_caught(broken)


@pytest.mark.parametrize("text", ["this stands nowhere", "raise OTAError"])
def test_bug_whose_text_is_not_there_once_is_an_error(text):
    with pytest.raises(ValueError, match="slot"):
        mutants.is_caught(Bug("gone", "ota/slot.py", text, "", ("cut/0/30/before",)))


SAME = Bug("nothing", "ota/slot.py", "def ", "def ", ("nosuch/1",))


def test_where_an_upgrade_writes_its_boot_records():
    # These bits are tried at programs of boot records alone, and each has two of them.
    known = [name for name in runner.names_of("flash") if name.endswith("stuck:192")]
    for scene in range(4):
        marks = [
            f"flash/{scene}/{{{mark}}}/stuck:192" for mark in ("set_boot", "trial", "confirm")
        ]
        found = [mutants.numbered(mark) for mark in marks]
        assert (
            list(dict.fromkeys(n for n in known if n.startswith(f"flash/{scene}/")))[-3:] == found
        )
    assert mutants.numbered("cut/0/{confirm+1}/before") != mutants.numbered(
        "cut/0/{confirm}/before"
    )
    assert mutants.numbered("http/0/small/404") == "http/0/small/404"


def test_hunt_plays_the_good_code_first(monkeypatch):
    monkeypatch.setattr(mutants, "is_caught", lambda bug: "hostile/hand/null" in bug.cases)
    sound = replace(SAME, cases=("nosuch/1", "hostile/hand/null"))
    found = mutants.hunt([SAME, sound, replace(SAME, cases=("cut/0/0/before",))])
    assert (found.seeded, found.missed) == (3, ["bugs/nothing", "bugs/nothing"])


def test_bug_that_cannot_be_tried_is_missed(capsys):
    gone = replace(SAME, name="gone", old="this stands nowhere")
    assert mutants.hunt([gone], ["nosuch/1"]).missed == ["bugs/gone"]
    assert "ValueError: gone" in capsys.readouterr().err


# Cases by name


def test_bug_by_its_name():
    assert [mutants.named(name) for name in mutants.names()] == list(BUGS)


def test_names_of_a_class_and_of_the_bugs_are_listed(capsys):
    assert cli.main(["--class", "network", "--class", "bugs", "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed == runner.names_of("network") + mutants.names()


@pytest.mark.parametrize(("missed", "status"), [([], 0), (["one"], 1)])
def test_bug_is_played_alone(monkeypatch, capsys, missed, status):
    monkeypatch.setattr(mutants, "hunt", lambda bugs: Hunt(1, missed))
    assert cli.main(mutants.names()[:1]) == status
    assert ("not caught" in capsys.readouterr().out) == bool(missed)


def test_case_of_an_unknown_class_fails_and_names_it():
    result = runner.play("nosuch/1")
    assert "KeyError: 'nosuch'" in result.why


# Faults that do not come


@pytest.mark.parametrize(
    ("fault", "why"), [("300:trace", "the power did not go"), ("9999:before", "was not reached")]
)
def test_cut_that_does_not_come_fails_the_case(tmp_path, fault, why):
    with pytest.raises(Failed, match=why):
        play(tmp_path / "device", SCENES[0], fault, frozenset((SUCCEEDED,)), UNITS)


def test_junk_that_nobody_gets_fails_the_case():
    broker = SimpleNamespace(publish=lambda *args, **more: 0)
    world = SimpleNamespace(broker=broker, url_of=str, story=lambda: "")
    for fault in (linkfaults.long(20000, 1), linkfaults.lie(0, 0)):
        with pytest.raises(Failed, match="nobody listened"):
            asyncio.run(fault(world))


# The report


def campaign(missed=(), failed=()):
    tally = Tally("power cuts", cases=3, tried=3, survived=3 - len(failed), failed=list(failed))
    return Campaign([tally], Hunt(40, list(missed)), seed=7, seconds=600)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "JSON", tmp_path / "build" / "faults.json")
    monkeypatch.setattr(report, "AGAIN", tmp_path / "build" / "faults.again")
    monkeypatch.setattr(report, "PAGE", tmp_path / "faults.md")
    return tmp_path


def test_report_writes_each_class_and_the_bugs(files):
    report.write(campaign(missed=["one"]))
    rows = json.loads((files / "build" / "faults.json").read_text())
    assert rows == [
        {"class": "power cuts", "tried": 3, "survived": 3},
        {"class": "seeded bugs", "seeded": 40, "caught": 39},
    ]
    page = (files / "faults.md").read_text()
    assert "| power cuts | 3 | 3 | 3 |" in page
    assert "| seeded bugs | | 40 | 39 caught |" in page
    assert "Seed 7; 10 minutes" in page


def test_failed_cases_that_were_played_again_are_counted(files):
    report.write(campaign(failed=["cut/0/1/before", "cut/0/2/before"], missed=["bugs/one"]))
    assert report.failed() == ["cut/0/1/before", "cut/0/2/before", "bugs/one"]
    before = json.loads((files / "build" / "faults.json").read_text())[0]
    results = [
        runner.Result("cut/0/1/before", 1, "", 1),
        runner.Result("cut/0/2/before", 1, "again", 1),
    ]
    report.amend(results, Hunt(1, []))
    after = json.loads((files / "build" / "faults.json").read_text())[0]
    assert (after["tried"], after["survived"]) == (before["tried"], before["survived"] + 1)
    page = (files / "faults.md").read_text()
    assert f"| {after['tried']} | {after['survived']} |" in page
    assert "2 of the cases did not survive at first" in page
    assert "| seeded bugs | | 40 | 40 caught |" in page
    assert report.failed() == ["cut/0/2/before"]


def test_report_shows_what_failed_and_what_was_missed(capsys):
    report.show(campaign(missed=["a bug"], failed=["cut/0/1/before"]))
    shown = capsys.readouterr().out
    assert "not survived: cut/0/1/before" in shown
    assert "not caught: a bug" in shown


def test_campaign_is_good_only_when_all_is():
    assert campaign().good
    assert not campaign(missed=["a bug"]).good
    assert not campaign(failed=["cut/0/1/before"]).good
    assert not Campaign([Tally("nothing played")], None, 1, 1).good


def test_tally_counts_what_was_tried():
    tally = Tally("some")
    tally.add(runner.Result("some/1", 100, "", 1))
    tally.add(runner.Result("some/2", 10, "why", 1))
    assert (tally.cases, tally.tried, tally.survived) == (2, 110, 100)
    assert tally.failed == ["some/2"]
