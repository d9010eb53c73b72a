"""
`python -m tools faults`: the whole campaign, one class of it, or single cases by their names.
"""

import argparse
import os
import subprocess
import sys
import time

from tools.faults import mutants, report, runner, trust
from tools.faults.groups import GROUPS

_SEED = 1
_BUGS = "bugs"  # the class of the seeded ones
_STORY = 4000  # characters of a failure that are shown


def main(argv: list[str]) -> int:
    """Returns the exit status: 0 = all survived, and all seeded bugs were caught."""
    options = _parser().parse_args(argv)
    if options.signed and not trust.SIGNED:  # once more, so that all that is imported knows
        os.environ[trust.VARIABLE] = "1"
        command = [sys.executable, "-m", "tools", "faults", *argv]
        return subprocess.run(command, check=False).returncode
    if options.cases:
        return _play(options.cases, options.first)
    if options.list:
        for key in options.classes or (*GROUPS, _BUGS):
            print(*(mutants.names() if key == _BUGS else runner.names_of(key)), sep="\n")
        return 0
    if options.again:
        return _again()
    return _campaign(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools faults", description="The fault campaign, see docs/faults.md."
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="play these alone, by name")
    parser.add_argument(
        "--class", dest="classes", action="append", choices=[*GROUPS, _BUGS], help="these alone"
    )
    parser.add_argument("--first", action="store_true", help="of CASE: stop when one fails")
    parser.add_argument(
        "--signed", action="store_true", help="devices that take signed firmware alone"
    )
    parser.add_argument("--sample", action="store_true", help="a sample of each class, by seed")
    parser.add_argument("--seed", type=int, default=_SEED, help="of sample and order")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--again", action="store_true", help="those that did not survive --write")
    parser.add_argument("--write", action="store_true", help="build/faults.json, docs/faults.md")
    return parser


def _play(names: list[str], first: bool) -> int:
    bad = False
    for name in names:
        if name.startswith(mutants.PREFIX):
            missed = mutants.hunt([mutants.named(name)]).missed
            bad = bad or bool(missed)
            print(f"{name}: {'not caught' if missed else 'caught'}")
        else:
            result = runner.play(name)
            bad = bad or bool(result.why)
            print(f"{name}: {result.why or 'survived'} ({result.seconds:.1f} s)")
        if bad and first:
            break
    return 1 if bad else 0


def _again() -> int:
    results: list[runner.Result] = []
    names = report.failed()
    bugs = [name for name in names if name.startswith(mutants.PREFIX)]
    runner.play_all([name for name in names if name not in bugs], results.append)
    for result in results:
        print(f"{result.name}: {result.why or 'survived'}")
    hunt = mutants.hunt([mutants.named(name) for name in bugs])
    print(f"{hunt.caught} of {hunt.seeded} bugs caught")
    report.amend(results, hunt)
    return 1 if hunt.missed or any(result.why for result in results) else 0


def _campaign(options: argparse.Namespace) -> int:
    keys = [key for key in options.classes or GROUPS if key in GROUPS]
    tallies = report.tallies(keys)
    began = time.monotonic()
    show = report.progress()
    survived = set()

    def take(result: runner.Result) -> None:
        tallies[result.name.split("/", 1)[0]].add(result)
        if result.why:
            print(f"\n{result.name} did NOT survive\n{result.why[-_STORY:]}", flush=True)
        else:
            survived.add(result.name)
        show(result)

    runner.run(keys, options.sample, options.seed, take)
    bugs = None
    if not options.classes or _BUGS in options.classes:
        bugs = mutants.hunt(mutants.chosen(options.seed, options.sample), survived)
    campaign = report.Campaign(
        list(tallies.values()), bugs, options.seed, time.monotonic() - began
    )
    report.show(campaign)
    if options.write:
        report.write(campaign)
    return 0 if campaign.good else 1
