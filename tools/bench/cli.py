"""python -m tools bench: what an upgrade costs on the device, against the limit and a peer."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tools.toolchain import BUILD

from . import measure
from .lab import versions
from .measure import MAIN, SIZES, WINDOWS, Bench, BenchError, bench, middle, spread

_QUICK = 3
_ROUNDS = 21
# Most, by key of build/bench.json; None = at least.
_BARS = {
    "cpu_ratio": 1.15,
    "cpu_ratio_read_back": 1.4,
    "inflate_ratio": 15,
    "heap_growth": 0,
    "heap_above_imports": 24 << 10,
    "heap_gz_4k": 9 << 10,
    "heap_gz_32k": 38 << 10,
    "allocations": 0,
    "messages": 25,
}
_SAVING = 0.30


def _heaps(lab: Bench, out: Console) -> dict:
    found = {"heap_imports": measure.heap_of_imports(lab)}
    for name in ("256k", "4m"):
        found[f"heap_{name}"] = measure.heap_of_upgrade(lab, SIZES[name])
    found["heap_trial"] = measure.heap_of_trial(lab, SIZES["256k"])
    plain = measure.heap_of_upgrade(lab, SIZES["256k"])
    for name, window in WINDOWS.items():
        key = "heap_gz_" + name.split()[1] + "k"
        found[key] = measure.heap_of_upgrade(lab, SIZES["256k"], window) - plain
    found["heap_growth"] = found["heap_4m"] - found["heap_256k"]
    most = max(found["heap_256k"], found["heap_4m"], found["heap_trial"])
    found["heap_above_imports"] = most - found["heap_imports"]
    for key in ("heap_imports", "heap_256k", "heap_4m", "heap_trial"):
        out.print(f"{key:20} {found[key]:8,} bytes")
    return found


def _times(lab: Bench, number: int, peer: bool, out: Console) -> dict:
    found: dict = {"rounds": number, "times": {}}
    for name, size in SIZES.items():
        wanted = measure.variants(peer)
        results = measure.rounds(lab, size, number, wanted, lambda: None)
        limit = middle(results["a"], "cpu")
        table = Table(title=f"{name}, {number} rounds")
        for column in ("", "CPU us", "quartiles", "ratio", "wall us", "erases", "writes", "reads"):
            table.add_column(column, justify="right")
        rows = {}
        for variant, runs in results.items():
            cpu = middle(runs, "cpu")
            rows[variant] = {
                "cpu_us": cpu,
                "cpu_quartiles": spread(runs, "cpu"),
                "ratio": round(cpu / limit, 3),
                "wall_us": middle(runs, "wall"),
            } | {key: middle(runs, key) for key in ("erases", "writes", "reads")}
            low, high = rows[variant]["cpu_quartiles"]
            table.add_row(
                variant,
                f"{cpu:,.0f}",
                f"{low:,.0f} to {high:,.0f}",
                f"{cpu / limit:.2f}",
                f"{rows[variant]['wall_us']:,.0f}",
                *(f"{rows[variant][key]:,.0f}" for key in ("erases", "writes", "reads")),
            )
        out.print(table)
        found["times"][name] = rows
    main = found["times"][MAIN]
    return found | {
        "cpu_ratio": main["c"]["ratio"],
        "cpu_ratio_read_back": main["b"]["ratio"],
        "inflate_ratio": main["gz"]["ratio"],
    }


def _judge(found: dict, out: Console) -> bool:
    good = True
    for key, most in _BARS.items():
        if key in found:
            holds = found[key] <= most
            good = good and holds
            out.print(f"{'ok    ' if holds else 'FAILED'} {key} {found[key]}, at most {most}")
    if "gz_saving" in found:
        holds = found["gz_saving"] >= _SAVING
        good = good and holds
        out.print(f"{'ok    ' if holds else 'FAILED'} gz_saving {found['gz_saving']}")
    return good


def _measure(args: argparse.Namespace, folder: Path, out: Console) -> dict:
    found: dict = {"versions": versions()}
    with bench(folder, args.peer) as lab:
        if not args.heap:
            number = _QUICK if args.quick else args.rounds
            found |= _times(lab, number, bool(args.peer), out)
            size = SIZES[MAIN]
            for window in WINDOWS.values():
                packed = len(measure.pack(measure.image(size), window))
                found[f"gz_saving_{window}"] = round(1 - packed / size, 3)
            found["gz_saving"] = found[f"gz_saving_{WINDOWS['gz 4 KB']}"]
            number, payload, _ = measure.messages(lab, size)
            found |= {"messages": number, "message_bytes": payload}
            why = measure.allocates(lab, size)
            found["allocations"] = 1 if why else 0
            if why:
                out.print(f"allocations: {why}")
        found |= _heaps(lab, out)
    return found


def main(argv: list[str]) -> int:
    """Exit status: 0 = every bar holds, 1 = one does not, or a run went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK} rounds: to try it")
    parser.add_argument("--heap", action="store_true", help="the smallest heaps alone")
    parser.add_argument(
        "--peer", type=Path, help="a module with from_firmware_file(url) to compare with"
    )
    args = parser.parse_args(argv)
    out = Console(width=100, highlight=False)
    if args.peer and not args.peer.exists():
        print(f"bench: {args.peer} is not there", file=sys.stderr)
        return 1
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = _measure(args, Path(folder), out)
    except (OSError, ValueError, RuntimeError, BenchError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    BUILD.mkdir(exist_ok=True)
    if not args.heap:
        (BUILD / "bench.json").write_text(json.dumps(found, indent=2) + "\n")
    return 0 if _judge(found, out) else 1
