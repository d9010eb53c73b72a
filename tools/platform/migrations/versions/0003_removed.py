"""
Firmware that was removed stays in the history of its batches.
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0003", "0002"


def upgrade():
    """All that is there stays."""
    removed = sa.Column("removed", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("firmware", removed)
