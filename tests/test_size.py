"""The device package stays as small as it promises."""

import re

import pytest

from tools import size


def test_package_fits_and_compiles_with_both_compilers(capsys):
    status = size.main()
    out = capsys.readouterr().out
    assert status == 0, out
    assert "  core of ota/, of 12,288\n" in out
    assert "  all of ota/, of 16,384\n" in out
    assert "boot.py and main.py, of 3,072" in out


def lines_of(out: str) -> dict[str, int]:
    """Bytes of each line of the table, by what stands behind them, the limit left out."""
    found = re.findall(r"^ *([\d,]+)  ([^,\n]+)", out, re.MULTILINE)
    return {name: int(number.replace(",", "")) for number, name in found}


def test_core_and_optional_files_are_all_of_it(capsys):
    size.main()
    found = lines_of(capsys.readouterr().out)
    files = {str(path.relative_to(size.ROOT)) for path in (size.ROOT / "ota").glob("*.py")}
    assert files <= set(found)
    optional = set(size.OPTIONAL)
    assert found["optional files of ota/"] == sum(found[name] for name in optional) > 0
    assert found["core of ota/"] == sum(found[name] for name in files - optional)
    assert found["all of ota/"] == found["core of ota/"] + found["optional files of ota/"]


@pytest.mark.parametrize(
    ("limit", "name"),
    [
        ("core_max", "core of ota/"),
        ("package_max", "all of ota/"),
        ("start_max", "boot.py and main.py"),
    ],
)
def test_one_byte_too_large_is_an_error(limit, name, capsys):
    size.main()
    exact = lines_of(capsys.readouterr().out)[name]
    assert size.main(**{limit: exact}) == 0
    capsys.readouterr()
    assert size.main(**{limit: exact - 1}) == 1
    assert f"  {name}, TOO LARGE, limit {exact - 1:,}\n" in capsys.readouterr().out


def test_what_the_oldest_compiler_refuses_is_an_error(monkeypatch, tmp_path, capsys):
    refuses = tmp_path / "mpy-cross"
    refuses.write_text("#!/bin/sh\necho SyntaxError >&2\nexit 1\n")
    refuses.chmod(0o755)
    monkeypatch.setattr(size, "CROSS_1_20", refuses)
    assert size.main(1 << 20, 1 << 20) == 1
    assert "does NOT compile with mpy-cross 1.20.0" in capsys.readouterr().out


def test_a_platform_without_the_oldest_compiler_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(size, "CROSS_1_20", tmp_path / "none")
    assert size.main(1 << 20, 1 << 20) == 0
    assert "SKIP mpy-cross 1.20.0" in capsys.readouterr().out
