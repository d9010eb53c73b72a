"""Rounds, medians, the smallest heap that works: from a Lab and its servers to the figures."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tools.image.pack import pack

from .lab import Lab
from .material import image
from .servers import Broker, broker, nginx

SIZES = {"256k": 256 << 10, "1.5m": 1536 << 10, "4m": 4 << 20}
MAIN = "1.5m"
WINDOWS = {"gz 4 KB": 12, "gz 32 KB": 15}
_OLD = 4096  # bytes of the image that runs: its header is looked at
_HEAP_STEP = 256  # bytes
_HEAP_MOST = 192 << 10
_CHECKS = 50  # of a signature, in one run of device/verify.py
_AGAIN = 3  # runs that a size has to bear


class BenchError(Exception):
    """A run that did not do what it should."""


class Bench:
    """A lab with its servers, see `bench`."""

    def __init__(self, lab: Lab, files: Path, mqtt: Broker):
        self.lab, self._files, self.broker = lab, files, mqtt

    def offer(self, size: int, window: int = 0, slow: bool = False) -> bytes:
        """An image of that size, window: 0 = plain; slow: 4 MB/s. Returns the image."""
        content = made = image(size)
        name = f"/{size}.bin"
        if window:
            content = pack(made, window)
            name = f"/{size}-{window}.gz"
        (self._files / name[1:]).write_bytes(content)
        self.lab.offer(f"/slow{name}" if slow else name, size)
        self.broker.offer(self.lab.url, content)
        return made

    def run(self, program: str, made: bytes, **options) -> dict:
        """One measured run from an empty slot. Raises BenchError, also when the slot is wrong."""
        self.lab.erase(made[:_OLD])
        found = self.lab.run(program, **options)
        why = found.why or self.lab.differs(made)
        if why:
            raise BenchError(f"{program}: {why}")
        return found.result


@contextmanager
def bench(folder: Path, peer: Path | None = None) -> Iterator[Bench]:
    """folder: an empty one."""
    with ExitStack() as stack:
        http, files = stack.enter_context(nginx(folder / "nginx"))
        mqtt = stack.enter_context(broker(folder / "mosquitto"))
        device = folder / "device"
        device.mkdir()
        yield Bench(Lab(device, mqtt.port, http, peer), files, mqtt)


def variants(peer: bool = False) -> dict[str, dict]:
    """What is measured: name to program, window, options of Lab.run."""
    found = {
        "a": {"program": "limit"},
        "b": {"program": "ours"},
        "c": {"program": "ours", "unchecked": True},
        "d": {"program": "plain"},
        "gz": {"program": "ours", "window": WINDOWS["gz 4 KB"]},
    }
    if peer:
        found["peer"] = {"program": "peer"}
    return found


def rounds(lab: Bench, size: int, number: int, wanted: dict[str, dict]) -> dict[str, list[dict]]:
    """Name to the results of its runs, the order turned each round."""
    results: dict[str, list[dict]] = {name: [] for name in wanted}
    names = list(wanted)
    for turn in range(number):
        order = names[turn % len(names) :] + names[: turn % len(names)]
        for name in order:
            options = dict(wanted[name])
            made = lab.offer(size, options.pop("window", 0))
            results[name].append(lab.run(options.pop("program"), made, **options))
    return results


def ratio(results: dict[str, list[dict]], name: str, base: str = "a") -> float:
    """
    The median of a variant's CPU time over that of `base` in the same round: runs that follow each
    other meet the machine in the same mood.
    """
    pairs = zip(results[name], results[base], strict=True)
    return round(statistics.median(one["cpu"] / other["cpu"] for one, other in pairs), 3)


def middle(results: list[dict], key: str) -> float:
    """The median, in us or operations."""
    return statistics.median(result[key] for result in results)


def spread(results: list[dict], key: str) -> tuple[float, float]:
    """First and third quartile."""
    values = [result[key] for result in results]
    if len(values) < 2:
        return values[0], values[0]
    cuts = statistics.quantiles(values, n=4)
    return cuts[0], cuts[2]


def least(works: Callable[[int], bool], low: int = 4096) -> int:
    """The smallest heap, in bytes, in which works() says True each time. Raises BenchError."""
    high = _HEAP_MOST
    if not works(high):
        raise BenchError(f"not even {high} bytes of heap are enough")
    while high - low > _HEAP_STEP:
        size = (low + high) // 2 // _HEAP_STEP * _HEAP_STEP
        if all(works(size) for _ in range(_AGAIN)):
            high = size
        else:
            low = size
    return high


def heap_of_imports(lab: Bench) -> int:
    """Bytes that importing umqtt, requests, esp32 and machine needs."""
    lab.lab.erase(image(_OLD))
    return least(lambda heap: not lab.lab.run("imports", heap).why)


def heap_of_rest(lab: Bench) -> int:
    """Bytes that the agent needs when nothing is to be done."""
    lab.lab.erase(lab.offer(SIZES["256k"])[:_OLD])
    lab.broker.offer_nothing()
    return least(lambda heap: not lab.lab.run("rest", heap).why)


def heap_of_upgrade(lab: Bench, size: int, window: int = 0, program: str = "whole") -> int:
    """
    Bytes that the agent needs from its start to the restart into the new image; or another program
    that downloads.
    """

    def works(heap: int) -> bool:
        made = lab.offer(size, window)
        try:
            lab.run(program, made, heap=heap)
        except BenchError:
            return False
        return True

    return least(works)


def heap_of_trial(lab: Bench, size: int) -> int:
    """Bytes that the start after it needs: trial, confirmation, report."""

    def works(heap: int) -> bool:
        made = lab.offer(size)
        lab.run("whole", made)
        lab.lab.boot()
        return not lab.lab.run("whole", heap).why and "succeeded" in lab.broker.statuses()

    return least(works)


def messages(lab: Bench, size: int) -> tuple[int, int, list[str]]:
    """Of one upgrade with the start behind it: messages, bytes of payload, statuses told."""
    made = lab.offer(size)
    lab.run("whole", made)
    lab.lab.boot()
    why = lab.lab.run("whole").why
    if why:
        raise BenchError(f"trial: {why}")
    return lab.broker.messages, lab.broker.size, lab.broker.statuses()


def verification(lab: Bench, bits: int, number: int) -> float:
    """CPU time of the check of a signed command, in us: the median of so many runs."""
    lab.lab.erase(image(_OLD))
    lab.lab.offer_signed(bits)
    times = []
    for _ in range(number):
        found = lab.lab.run("verify")
        if found.why:
            raise BenchError(f"verify: {found.why}")
        times.append(found.result["cpu"] / _CHECKS)
    return round(statistics.median(times))


def allocates(lab: Bench, size: int, window: int = 0) -> str:
    """ "" when a download does not allocate for a block, else what went wrong."""
    made = lab.offer(size, window, slow=True)
    try:
        lab.run("locked", made)
    except BenchError as error:
        return str(error)
    return ""
