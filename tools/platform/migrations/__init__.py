"""
Migrations of the data base, by alembic: versions/ has a file for each change of a release.

`upgrade` is all that the platform needs; the command `alembic` is not. A new one is a file in
versions/ written by hand, that a test holds to tables.py.
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from tools.platform.model import PlatformError


def upgrade(connection: sa.Connection):
    """
    Brings the data base to the newest version, in the transaction of this connection.
    Raises PlatformError for one of a newer release.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise PlatformError(
            f"the data base is of a release that this one does not know ({error})"
        ) from error


def head() -> str:
    """The newest version."""
    return ScriptDirectory(str(Path(__file__).parent)).get_current_head()
