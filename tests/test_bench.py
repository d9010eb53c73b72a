"""tools/bench: figures, bars and the page; and two small runs over the real servers."""

import re

import pytest
from rich.console import Console

from tools.bench import cli, fleet, measure, page
from tools.bench.lab import Run
from tools.bench.measure import BenchError, bench

SIZE = 64 << 10
PEER = """
import socket, gc
from esp32 import Partition


def from_firmware_file(url):
    host, _, path = url[7:].partition("/")
    host, _, port = host.partition(":")
    sock = socket.socket()
    sock.connect(socket.getaddrinfo(host, int(port))[0][-1])
    sock.write(b"GET /%s HTTP/1.0\\r\\n\\r\\n" % path.encode())
    while sock.readline() != b"\\r\\n":
        pass
    part = Partition(Partition.RUNNING).get_next_update()
    block, buf = 0, bytearray(4096)
    while sock.readinto(buf):
        part.writeblocks(block, buf)
        block += 1
"""


def runs(*cpus):
    return [{"cpu": cpu, "wall": cpu, "erases": 1, "writes": 2, "reads": 3} for cpu in cpus]


def test_ratio_is_that_of_the_same_round():
    # The machine is twice as slow in the second round, and four times in the third.
    results = {"a": runs(100, 200, 400), "b": runs(150, 300, 600)}
    assert measure.ratio(results, "b") == 1.5
    assert measure.ratio(results, "a") == 1


def test_median_and_quartiles():
    assert measure.middle(runs(5, 1, 3), "cpu") == 3
    assert measure.spread(runs(7), "cpu") == (7, 7)
    assert measure.spread(runs(*range(1, 8)), "cpu") == (2, 6)


@pytest.mark.parametrize("needed", [4097, 20_000, 100_000])
def test_smallest_heap_is_found_within_a_step(needed):
    found = measure.least(lambda heap: heap >= needed)
    assert needed <= found < needed + 512


def test_heap_that_works_sometimes_does_not_count():
    tries = []

    def works(heap):
        tries.append(heap)
        return heap >= 50_000 or heap >= 30_000 and len(tries) % 2

    assert measure.least(works) >= 50_000


def test_nothing_works():
    with pytest.raises(BenchError, match="not even"):
        measure.least(lambda heap: False)


@pytest.mark.parametrize("key", cli.BARS)
def test_bar_holds_up_to_its_value_and_not_beyond(key):
    bar = cli.BARS[key]
    beyond = bar - 0.001 if key in cli.LEAST else bar + 0.001
    assert cli.holds(key, bar)
    assert not cli.holds(key, beyond)
    quiet = Console(quiet=True)
    assert cli.judge(dict(cli.BARS), quiet)
    assert not cli.judge(cli.BARS | {key: beyond}, quiet)


FOUND = fleet.Found(500, 10.0, 600, 5.0, 150, 0)


def figures():
    rows = {
        name: {"cpu_us": 2000.0, "cpu_quartiles": (1900.0, 2100.0), "ratio": 1.25}
        | {"wall_us": 2000.0, "erases": 64, "writes": 64, "reads": 128}
        for name in measure.variants()
    }
    heaps = ("imports", "rest", "256k", "1.5m", "4m", "trial", "limit", "plain")
    return (
        cli.BARS
        | {f"heap_{name}": 40_000 for name in heaps}
        | {"times": dict.fromkeys(measure.SIZES, rows), "rounds": 21, "message_bytes": 1234}
        | {"gz_saving_4k": 0.4, "gz_saving_32k": 0.42, "machine": page.machine()}
        | {"verify_3072_us": 5000}
        | fleet.figures([FOUND, fleet.Found(5000, 60.0, 1200, 6.0, 200, 0)])
        | {"versions": {"MicroPython": "1.2", "requests": "3.4", "Python": "3.11"}}
    )


def test_page_has_every_bar_and_says_which_do_not_hold():
    text = page.text(figures() | {"messages": 26})
    for key in cli.BARS:
        assert f"`{key}`" in text
    assert text.count("**does not hold**") == 1
    assert "| `messages` | 26 | at most 25 | **does not hold** |" in text


def test_tables_of_the_page_have_as_many_cells_in_each_row():
    tables = re.findall(r"(?:^\|.*\|\n)+", page.text(figures()), re.MULTILINE)
    assert len(tables) == 6
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_figures_of_a_fleet():
    found = fleet.figures([FOUND, fleet.Found(5000, 60.0, 1200, 6.5, 200, 3)])
    assert found["fleet_cost_ratio"] == 1.3
    assert (found["fleet_memory_mb"], found["fleet_lost"]) == (200, 3)
    assert found["fleet_messages_s"] == 1200


def test_a_small_fleet_over_the_real_servers(monkeypatch):
    monkeypatch.setattr(fleet, "_PAUSE_S", (0.01, 0.05))
    found = fleet.measure(20)
    assert (found.devices, found.lost) == (20, 0)
    assert found.messages_s > 0 and found.cpu_ms > 0 and found.memory_mb > 0


@pytest.mark.parametrize(
    "argv", [["--rounds", "0"], ["--write", "--quick"], ["--write", "--heap"], ["--nothing"]]
)
def test_bad_arguments(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 2
    assert argv[0] in capsys.readouterr().err


def test_peer_that_is_not_there(tmp_path, capsys):
    assert cli.main(["--peer", str(tmp_path / "none.py")]) == 1
    assert "none.py is not there" in capsys.readouterr().err


@pytest.fixture
def lab(tmp_path):
    peer = tmp_path / "peer_of_test.py"
    peer.write_text(PEER)
    folder = tmp_path / "bench"
    folder.mkdir()
    with bench(folder, peer) as found:
        yield found


def test_each_variant_brings_the_image_into_the_slot(lab):
    results = measure.rounds(lab, SIZE, 1, measure.variants(peer=True))
    assert list(results) == ["a", "b", "c", "d", "gz", "peer"]
    blocks = SIZE // 4096
    for name, (run,) in results.items():
        assert run["cpu"] > 0, name
        assert (run["erases"], run["writes"]) == (blocks, blocks), name
    # (b) looks whether a block is there, and reads it back; (c) does neither.
    assert (results["b"][0]["reads"], results["c"][0]["reads"]) == (2 * blocks, 0)
    number, payload, statuses = measure.messages(lab, SIZE)
    assert statuses[-1] == "succeeded"
    assert 5 <= number <= cli.BARS["messages"] and payload > 100
    # The figures are those of real processes: one that allocates is found out.
    assert measure.allocates(lab, 1 << 20) == ""


def test_signature_is_verified_and_a_wrong_one_is_not(lab):
    assert 0 < measure.verification(lab, 2048, 1) < measure.verification(lab, 3072, 1)
    lab.lab.offer_signed(2048)
    config = lab.lab.folder / "config.py"
    lab.lab._configure(config.read_text().replace("ota1 ", "ota2 "))
    assert "OTAError" in lab.lab.run("verify").why


def test_run_that_leaves_another_slot_is_an_error(lab, monkeypatch):
    made = lab.offer(SIZE)
    assert "cpu" in lab.run("limit", made)
    monkeypatch.setattr(lab.lab, "run", lambda *_, **__: Run({"cpu": 1}, ""))
    with pytest.raises(BenchError, match="differs from the image at byte 0"):
        lab.run("limit", made)
