"""
The data bases that the platform's tests run over. A test module that needs them says
`pytest_plugins = "tests.databases"`.
"""

import itertools

import pytest
import sqlalchemy as sa

from tools import servers


@pytest.fixture(scope="session")
def postgres():
    """Makes URLs of empty data bases, on a PostgreSQL that ends with the tests."""
    with servers.postgres("fsync=off", "max_connections=200") as url:
        numbers = itertools.count()

        def make() -> str:
            name = f"test{next(numbers)}"
            engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.exec_driver_sql(f"CREATE DATABASE {name}")
            engine.dispose()
            return url.rpartition("/")[0] + "/" + name

        yield make


@pytest.fixture(params=["sqlite", "postgres"])
def database(request):
    """The platform's option of that name: None = SQLite."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgres")()
