"""
The fixtures for whole upgrades. A test module that needs them says
`pytest_plugins = "tests.bench_fixtures"`.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench import SIZE, Bench
from tests.bench_files import FileServer
from tools.image.firmware import firmware


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """
    Makes an image, each only once: images("1.1.0", size=..., app=..., extra_modules=...).
    """
    folder = tmp_path_factory.mktemp("images")
    made: dict[str, Path] = {}

    def make(version: str, size: int = SIZE, **options) -> Path:
        key = repr((version, size, sorted(options.items())))
        if key not in made:
            made[key] = firmware(folder / f"{len(made)}.bin", version, size=size, **options)
        return made[key]

    return make


@pytest.fixture
def make_bench(tmp_path, images) -> Iterator[Callable[..., Bench]]:
    """Makes a Bench; options: of the platform. Its end: no flash violation on any device."""
    with contextlib.ExitStack() as stack:

        def make(**options) -> Bench:
            made = Bench(tmp_path, images, **options)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def bench(make_bench) -> Bench:
    return make_bench()


@pytest.fixture
def files() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server
