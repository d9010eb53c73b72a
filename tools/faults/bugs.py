"""The seeded bugs of the campaign, see mutants.py."""

from .bug import Bug
from .bugs_agent import AGENT
from .bugs_device import DEVICE
from .bugs_upgrade import UPGRADE

__all__ = ["BUGS", "Bug"]

BUGS = UPGRADE + AGENT + DEVICE
