"""The simulated ESP32 gives the answers of a real one's own code, on both interpreters."""

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

from tools.device import replay
from tools.toolchain import micropython

GOLDEN = Path(__file__).parent / "golden"
DEVICE = Path(replay.__file__).parent

# (file, answers in it)
FILES = [("idf-5.5", 10426), ("idf-6.1", 10377), ("images", 6000)]

# Plays the traces of argv[1] over the same modules; prints what differs, and how many answers.
ON_MICROPYTHON = """
import json, sys
from trace import Device
def image(name):
    with open(sys.argv[2] + "/" + name + ".bin", "rb") as file:
        return file.read()
answers = 0
with open(sys.argv[1]) as file:
    for line in file:
        row = json.loads(line)
        device = Device(row, image)
        for step in row["steps"]:
            got = device.answer(*step[:-1])
            answers += 1
            if got != step[-1]:
                print(row["name"], step, got)
print(answers, "answers")
"""


def first_trace(generation="5.5"):
    return replay.read_rows(GOLDEN / f"idf-{generation}.jsonl.gz")[0]


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(("name", "answers"), FILES)
def test_every_answer_is_the_real_one(name, answers):
    differences = []
    path = GOLDEN / f"{name}.jsonl.gz"
    assert replay.replay([path], out=differences.append) == (answers, 0), differences[:5]


@pytest.mark.parametrize("generation", ["5.5", "6.1"])
def test_micropython_gives_the_same_answers(generation, tmp_path):
    rows = replay.read_rows(GOLDEN / f"idf-{generation}.jsonl.gz")[::12]
    expected = sum(len(row["steps"]) for row in rows)
    done = subprocess.run(
        [
            micropython(),
            "-X",
            "heapsize=32m",
            "-c",
            ON_MICROPYTHON,
            written(tmp_path / "traces.jsonl", *rows),
            GOLDEN / "images",
        ],
        env={"MICROPYPATH": f"{DEVICE}:{DEVICE / 'port'}", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == f"{expected} answers\n", done.stdout[-2000:] + done.stderr[-2000:]


def test_a_tampered_trace_is_named(tmp_path, capsys):
    trace = first_trace()
    trace["steps"][2][-1] = {"errno": -5379}
    status = replay.main([written(tmp_path / "t.jsonl", trace)])
    out = capsys.readouterr().out.splitlines()
    assert status == 1
    assert out[-1] == f"{len(trace['steps'])} answers, 1 differ"
    assert "5.5-2-0000 step 2" in out[0]
    assert "set_boot" in out[0]
    assert "expected {'errno': -5379}, got None" in out[0]


def test_a_tampered_verdict_is_named(tmp_path, capsys):
    row = replay.read_rows(GOLDEN / "images.jsonl.gz")[0]
    row["set_boot"]["6.1"] = 0
    assert replay.main([written(tmp_path / "t.jsonl", row)]) == 1
    out = capsys.readouterr().out
    assert "expected 0, got -5379" in out
    assert out.endswith("2 answers, 1 differ\n")


def test_other_images_come_from_a_folder(tmp_path, capsys):
    image = (GOLDEN / "images" / "good-1.bin").read_bytes()
    trace = {
        "name": "own",
        "idf": "6.1",
        "table": first_trace()["table"],
        "flashed": {"ota_0": "mine"},
        "steps": [["start", "ota_0"], ["stat", [2, 0]]],
    }
    path = written(tmp_path / "t.jsonl", trace)
    assert replay.main([path]) == 2
    assert "no image mine" in capsys.readouterr().err
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "mine.bin").write_bytes(image)
    trace["table"] = [row for row in trace["table"] if row[0] != "factory"]
    path = written(tmp_path / "t.jsonl", trace)
    assert replay.main(["--images", str(folder), path]) == 0
    assert capsys.readouterr().out == "2 answers, 0 differ\n"


def test_no_answer_at_all_is_a_failure(tmp_path, capsys):
    assert replay.main([written(tmp_path / "empty.jsonl")]) == 1
    assert capsys.readouterr().out == "0 answers, 0 differ\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"not json\n", "Expecting value"),
        (b"[1]\n", "not an object"),
        (b'{"what": 1}\n', "neither a trace"),
        (b'{"name": "a", "steps": [["start", null]]}\n', "malformed"),
        (b'{"idf": "5.5", "table": [], "steps": [["fly", null]]}\n', "no verb fly"),
        (b'{"idf": "4.4", "table": [], "steps": []}\n', "malformed"),
        (gzip.compress(b"{}", mtime=0)[:-6], "end-of-stream"),
    ],
)
def test_a_file_that_cannot_be_played(content, message, tmp_path, capsys):
    path = tmp_path / "bad.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert replay.main([str(path)]) == 2
    assert message in capsys.readouterr().err
