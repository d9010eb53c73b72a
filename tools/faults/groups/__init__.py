"""The classes of the campaign, one module each; GROUPS has them in the order of the table."""

from . import cuts

GROUPS = {group.key: group for group in (cuts.GROUP,)}
