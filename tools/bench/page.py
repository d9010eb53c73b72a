"""docs/figures.md, from what was measured."""

import os
import platform
from pathlib import Path

from .fleet import MESSAGES
from .measure import MAIN, SIZES, WINDOWS

_NAMES = {
    "a": "(a) the limit: socket, MD5, `writeblocks`, one buffer",
    "b": "(b) ours, all checks on",
    "c": "(c) ours, without reading back and comparing",
    "d": "(d) `requests` with `raw.read(4096)`",
    "gz": "ours, a .gz with a 4 KB window",
}
_SIZE_NAMES = {"256k": "256 KiB", "1.5m": "1.5 MiB", "4m": "4 MiB"}
_BLOCK = 4096

_TOP = """\
# Figures

What an upgrade costs on the device. This page is made by `python -m tools bench --write`
(`make bench` measures the same, and leaves the page as it is). It is the MicroPython unix port, 64
bit, on a PC: the ratios tell what our code costs, the times say nothing about an ESP32, on which
the flash takes most of the time (about 60 ms a block).

Measured on {cpu}, {cores} cores, {system}.
Versions: {MicroPython}; requests {requests}.

Broker (mosquitto) and HTTP server (nginx) are real, over loopback. The partition is a plain file,
so that what is measured is the code above it.
"""

_CPU = """
## CPU time

From the first byte of the body to the last block, {rounds} rounds, the order turned each round.
CPU: median and quartiles. Ratio: median of the ratios to (a) of the same round. Flash operations:
per block of 4 KiB.
"""

_GROWTH = """
From 256 KiB to 4 MiB, 16 times the size, (b) costs {:.1f} times the CPU time: a block always costs
the same. A read is 512 bytes where blocks are compared, else a whole block.
"""

_HEAP = """
## Heap

The smallest `-X heapsize` that succeeds three times, found by bisection in steps of 256 bytes; all
code is .mpy. On a 32-bit ESP32 pointers are half as long: expect about 0.7 of it.
"""

_TRAFFIC = """
## Traffic

One upgrade of {size}, with the start behind it: {messages} MQTT messages, {message_bytes:,} bytes
of payload. A .gz of the same image saves {small:.1%} of the download with a 4 KB window, and
{large:.1%} with 32 KB.

## Allocations

With the heap locked around each step (`micropython.heap_lock`), a download in its steady state
{allocates}. The note that goes into NVS every 64 KiB is outside of the lock.
"""

_SIGNATURES = """
## Signatures

The check of a signed command ([trust](trust.md#the-manifest)), CPU time, median of {rounds} runs
of 50: {verify_us:,} us with RSA-2048, {verify_3072_us:,} us with RSA-3072, here, with digits of 32
bits. An ESP32 has digits of 16 bits, so four times as many steps: by count about 560,000 for
RSA-2048, of 10 to 20 cycles each. That makes 25 to 50 ms at 240 MHz, once for each command; it is
an estimate, not measured on a board.
"""

_FLEET = """
## Platform

Devices of the protocol alone, an MQTT client each, in one batch: {messages} messages each, a pause
of 0.2 to 1 s between two. One worker, mosquitto, PostgreSQL and all devices on this machine, so
that they share its cores. CPU and memory are those of the platform's process.
"""

_BARS = """
## Bars

What `make bench` holds these figures to; it ends with status 1 when one does not hold.
"""


def machine() -> dict[str, str]:
    """What measures: cpu, cores, system."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return {"cpu": cpu, "cores": str(os.cpu_count()), "system": platform.system()}


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cpu(found: dict) -> str:
    text = _CPU.format(rounds=found["rounds"])
    for size, rows in found["times"].items():
        text += f"\n{_SIZE_NAMES[size]}:\n\n"
        blocks = SIZES[size] // _BLOCK
        table = []
        for name, label in _NAMES.items():
            row = rows[name]
            low, high = row["cpu_quartiles"]
            table.append(
                (
                    label,
                    f"{row['cpu_us'] / 1000:,.1f} ({low / 1000:,.1f} to {high / 1000:,.1f})",
                    f"{row['ratio']:.2f}",
                    f"{row['wall_us'] / 1000:,.1f}",
                    *(f"{row[key] / blocks:.1f}" for key in ("erases", "writes", "reads")),
                )
            )
        head = ("", "CPU, ms", "ratio", "wall, ms", "erases", "writes", "reads")
        text += _table(head, table)
    least, most = (found["times"][size]["b"]["cpu_us"] for size in ("256k", "4m"))
    return text + _GROWTH.format(most / least)


def _heap(found: dict) -> str:
    rows = [("imports alone: umqtt, requests, esp32, machine", "heap_imports")]
    rows += [("the agent at rest, MQTT connected", "heap_rest")]
    rows += [(f"an upgrade, {_SIZE_NAMES[size]}", f"heap_{size}") for size in SIZES]
    rows += [
        ("the start behind it: trial, confirmation, report", "heap_trial"),
        ("(a) the limit", "heap_limit"),
        ("(d) `requests` with `raw.read(4096)`", "heap_plain"),
    ]
    base = found["heap_imports"]
    table = [
        (
            label,
            f"{found[key]:,}",
            f"{found[key] - base:,}",
            f"{found[key] - found['heap_rest']:,}",
        )
        for label, key in rows
    ]
    text = _table(("", "bytes", "above imports", "above rest"), table)
    more = ", ".join(
        f"{found['heap_gz_' + name.split()[1] + 'k']:,} with a {name.split()[1]} KB window"
        for name in WINDOWS
    )
    return _HEAP + "\n" + text + f"\nMore for a .gz: {more}.\n"


def _fleet(found: dict) -> str:
    head = ("devices", "seconds", "messages a second", "CPU a device, ms", "memory, MB", "lost")
    keys = "devices", "seconds", "messages_s", "cpu_ms", "memory_mb", "lost"
    rows = [tuple(f"{row[key]:,}" for key in keys) for row in found["fleet"]]
    return _FLEET.format(messages=MESSAGES) + "\n" + _table(head, rows)


def _bars(found: dict) -> str:
    from .cli import BARS, LEAST, holds

    rows = [
        (
            f"`{key}`",
            f"{found[key]:,}",
            f"at {'least' if key in LEAST else 'most'} {bar:,}",
            "holds" if holds(key, found[key]) else "**does not hold**",
        )
        for key, bar in BARS.items()
    ]
    return _BARS + "\n" + _table(("", "measured", "bar", ""), rows)


def text(found: dict) -> str:
    """The page. found: what build/bench.json has."""
    traffic = _TRAFFIC.format(
        size=_SIZE_NAMES[MAIN],
        messages=found["messages"],
        message_bytes=found["message_bytes"],
        small=found["gz_saving_4k"],
        large=found["gz_saving_32k"],
        allocates="allocates" if found["allocations"] else "allocates nothing",
    )
    top = _TOP.format(**found["machine"], **found["versions"])
    signatures = _SIGNATURES.format(**found)
    return top + _cpu(found) + _heap(found) + traffic + signatures + _fleet(found) + _bars(found)
