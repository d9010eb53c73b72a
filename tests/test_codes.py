"""Every copy of a number equals the table in ota/protocol.py, and every code has its sentences."""

import ast
import re

import pytest

from ota import protocol
from tools import codes
from tools.toolchain import ROOT

SOURCES = sorted((ROOT / "ota").glob("*.py"))
NAMED = re.compile(r"^(_[A-Z_0-9]+) = const\((\d+)\)", re.MULTILINE)
TABLE = {
    name: int(number)
    for name, number in NAMED.findall((ROOT / "ota" / "protocol.py").read_text())
    if 200 <= int(number) < 500
}


def test_the_table_is_found_in_the_source():
    assert len(TABLE) >= 30
    assert {name: getattr(protocol, name) for name in TABLE} == TABLE
    assert len(set(TABLE.values())) == len(TABLE)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_copies_of_codes_equal_the_table(path):
    for name, number in NAMED.findall(path.read_text()):
        number = int(number)
        if 410 <= number < 500 or name in TABLE:
            assert TABLE.get(name) == number, f"{path.name}: {name} = {number}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_errors_are_raised_by_name(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "OTAError":
            assert not isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}"


def test_each_code_has_its_sentences():
    assert {code.name: code.number for code in codes.CODES.values()} == {
        name[1:]: number for name, number in TABLE.items()
    }
    for code in codes.CODES.values():
        assert code.cause.endswith(".")
        assert code.cure.endswith(".")
        assert bool(code.remark) == (code.number >= 410 and not 480 <= code.number < 490)


# Source: docs/protocol.md, "Statuses and codes".
@pytest.mark.parametrize(
    ("number", "remark"),
    [
        (200, ""),
        (202, ""),
        (410, "Push Failed"),
        (416, "Push Failed"),
        (420, "Firmware Verification Failed"),
        (431, "Download Firmware Failed"),
        (440, "Firmware Verification Failed"),
        (452, "Firmware Burn Failed"),
        (460, "Firmware Burn Failed"),
        (464, "Firmware Burn Failed"),
        (470, "Task Aborted"),
        (480, ""),
        (491, "Download Firmware Failed"),
    ],
)
def test_remark_of_a_code(number, remark):
    assert codes.CODES[number].remark == remark


def test_sentence_of_a_code_and_of_none():
    assert codes.sentence(431).startswith("The file server did not answer with the file")
    assert codes.sentence(499) == codes.sentence(None) == ""


def test_the_page_is_up_to_date(tmp_path):
    path = tmp_path / "codes.md"
    assert codes.main([str(path)]) == 0
    assert path.read_text() == (ROOT / "docs" / "codes.md").read_text(), "run make docs"
