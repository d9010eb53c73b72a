"""
The fixture for the engine over both data bases. A test module that needs it says
`pytest_plugins = "tests.engine_fixtures"`.
"""

import pytest

from tests.engine import Stage

pytest_plugins = "tests.databases"


@pytest.fixture
def stage(tmp_path, database):
    stage = Stage(tmp_path, database)
    yield stage
    stage.close()
