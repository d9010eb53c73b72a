"""
python -m tools bench: what an upgrade costs on the device, against the limit and a peer; what a
fleet costs the platform.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tools.toolchain import BUILD, ROOT

from . import fleet, measure, page
from .lab import versions
from .measure import MAIN, SIZES, WINDOWS, Bench, BenchError, bench, middle, spread

_QUICK = 3
_ROUNDS = 21
RESULTS = BUILD / "bench.json"
PAGE = ROOT / "docs" / "figures.md"

# By key of build/bench.json: the most, or where `least` says so the least, that it may be.
BARS = {
    "cpu_ratio": 1.15,
    "cpu_ratio_read_back": 1.4,
    "inflate_ratio": 15,
    # From 256 KiB to 4 MiB, any direction: where the heap's holes lie differs a little each time.
    "heap_growth": 1024,
    "heap_above_imports": 24 << 10,
    "heap_gz_4k": 9 << 10,
    "heap_gz_32k": 38 << 10,
    "allocations": 0,
    "messages": 25,
    "gz_saving": 0.30,
    "verify_us": 2000,
    "fleet_memory_mb": 300,
    "fleet_cost_ratio": 1.2,
    "fleet_lost": 0,
}
LEAST = ("gz_saving",)
_COLUMNS = ("", "CPU us", "quartiles", "ratio", "wall us", "erases", "writes", "reads")


def _heaps(lab: Bench, peer: bool, out: Console) -> dict:
    small = SIZES["256k"]
    found = {"heap_imports": measure.heap_of_imports(lab), "heap_rest": measure.heap_of_rest(lab)}
    for name, size in SIZES.items():
        found[f"heap_{name}"] = measure.heap_of_upgrade(lab, size)
    found["heap_trial"] = measure.heap_of_trial(lab, small)
    for program in ("limit", "plain", *(["peer"] if peer else [])):
        found[f"heap_{program}"] = measure.heap_of_upgrade(lab, small, program=program)
    for name, value in found.items():
        out.print(f"{name:20} {value:8,} bytes")
    upgrades = [found[f"heap_{name}"] for name in SIZES]
    for name, window in WINDOWS.items():
        key = "heap_gz_" + name.split()[1] + "k"
        found[key] = measure.heap_of_upgrade(lab, small, window) - found["heap_256k"]
    found["heap_growth"] = max(upgrades) - min(upgrades)
    found["heap_above_imports"] = max(*upgrades, found["heap_trial"]) - found["heap_imports"]
    return found


def _rows(results: dict[str, list[dict]]) -> dict[str, dict]:
    return {
        variant: {
            "cpu_us": middle(runs, "cpu"),
            "cpu_quartiles": spread(runs, "cpu"),
            "ratio": measure.ratio(results, variant),
            "wall_us": middle(runs, "wall"),
        }
        | {key: middle(runs, key) for key in ("erases", "writes", "reads")}
        for variant, runs in results.items()
    }


def _show(title: str, rows: dict[str, dict], out: Console) -> None:
    table = Table(title=title)
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for variant, row in rows.items():
        low, high = row["cpu_quartiles"]
        table.add_row(
            variant,
            f"{row['cpu_us']:,.0f}",
            f"{low:,.0f} to {high:,.0f}",
            f"{row['ratio']:.2f}",
            *(f"{row[key]:,.0f}" for key in ("wall_us", "erases", "writes", "reads")),
        )
    out.print(table)


def _times(lab: Bench, number: int, peer: bool, out: Console) -> dict:
    times = {}
    for name, size in SIZES.items():
        rows = _rows(measure.rounds(lab, size, number, measure.variants(peer)))
        _show(f"{name}, {number} rounds", rows, out)
        times[name] = rows
    main = times[MAIN]
    return {
        "rounds": number,
        "times": times,
        "cpu_ratio": main["c"]["ratio"],
        "cpu_ratio_read_back": main["b"]["ratio"],
        "inflate_ratio": main["gz"]["ratio"],
    }


def holds(key: str, value: float) -> bool:
    """True when a figure is on the right side of its bar."""
    return value >= BARS[key] if key in LEAST else value <= BARS[key]


def judge(found: dict, out: Console) -> bool:
    """Prints each bar. True when all hold."""
    good = True
    for key, bar in BARS.items():
        if key in found:
            well = holds(key, found[key])
            good = good and well
            word = "least" if key in LEAST else "most"
            out.print(f"{'ok    ' if well else 'FAILED'} {key} {found[key]}, at {word} {bar}")
    return good


def _traffic(lab: Bench) -> dict:
    size = SIZES[MAIN]
    found = {}
    for name, window in WINDOWS.items():
        packed = len(measure.pack(measure.image(size), window))
        found["gz_saving_" + name.split()[1] + "k"] = round(1 - packed / size, 3)
    found["gz_saving"] = found["gz_saving_4k"]
    found["messages"], found["message_bytes"], _ = measure.messages(lab, size)
    return found


def _fleet(out: Console) -> dict:
    found = []
    for size in fleet.SIZES:
        found.append(fleet.measure(size))
        out.print(str(found[-1]))
    return fleet.figures(found)


def _measure(args: argparse.Namespace, folder: Path, out: Console) -> dict:
    found: dict = {"versions": versions(), "machine": page.machine()}
    if args.fleet:
        return found | _fleet(out)
    with bench(folder, args.peer) as lab:
        if not args.heap:
            number = _QUICK if args.quick else args.rounds
            found |= _times(lab, number, bool(args.peer), out)
            found |= _traffic(lab)
            for bits, key in ((2048, "verify_us"), (3072, "verify_3072_us")):
                found[key] = measure.verification(lab, bits, number)
            why = measure.allocates(lab, SIZES[MAIN])
            found["allocations"] = 1 if why else 0
            if why:
                out.print(f"allocations: {why}")
        found |= _heaps(lab, bool(args.peer), out)
    return found if args.heap or args.quick else found | _fleet(out)


def main(argv: list[str]) -> int:
    """Exit status: 0 = every bar holds, 1 = one does not, or a run went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK} rounds: to try it")
    parser.add_argument("--heap", action="store_true", help="the smallest heaps alone")
    parser.add_argument("--fleet", action="store_true", help="the platform alone")
    parser.add_argument(
        "--peer", type=Path, help="a module with from_firmware_file(url) to compare with"
    )
    parser.add_argument("--write", action="store_true", help="docs/figures.md, too")
    args = parser.parse_args(argv)
    out = Console(width=100, highlight=False)
    if args.rounds < 1:
        parser.error("--rounds: at least 1")
    if args.write and (args.heap or args.quick or args.fleet or args.peer):
        parser.error("--write: the page has all figures, of all rounds, and no peer's")
    if args.peer and not args.peer.exists():
        print(f"bench: {args.peer} is not there", file=sys.stderr)
        return 1
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = _measure(args, Path(folder), out)
    except (OSError, ValueError, RuntimeError, BenchError, fleet.FleetError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    BUILD.mkdir(exist_ok=True)
    if not (args.heap or args.fleet):
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    if args.write:
        PAGE.write_text(page.text(found))
    return 0 if judge(found, out) else 1
