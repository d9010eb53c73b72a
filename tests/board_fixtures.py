"""A board on the desk. Who needs it says `pytest_plugins = "tests.board_fixtures"`."""

import pytest

from tests.boards import PROMPT, WAIT_S
from tools.device.device import Device
from tools.image.firmware import stock as write_stock


@pytest.fixture(scope="session")
def stock(tmp_path_factory):
    return write_stock(tmp_path_factory.mktemp("stock") / "stock.bin")


@pytest.fixture
def board(tmp_path, stock):
    with Device(tmp_path / "board", serial=True) as device:
        device.create(stock).start().wait(PROMPT, WAIT_S)
        yield device
