"""The device package stays as small as it promises."""

import pytest

from tools import size


def test_package_fits_and_compiles_with_both_compilers(capsys):
    status = size.main()
    out = capsys.readouterr().out
    assert status == 0, out
    assert "ota/, of 12,288" in out
    assert "boot.py and main.py, of 3,072" in out


@pytest.mark.parametrize("limits", [(10, 3_072), (12_288, 10)], ids=["package", "start"])
def test_too_large_is_an_error(limits, capsys):
    assert size.main(*limits) == 1
    assert "TOO LARGE, limit 10" in capsys.readouterr().out


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
