"""The classes of the campaign, one module each; GROUPS has them in the order of the table."""

from . import (
    broker,
    clock,
    cuts,
    flash,
    hostile,
    http,
    late,
    memory,
    network,
    records,
    second,
    soak,
    torn,
    trial,
)

GROUPS = {
    group.key: group
    for group in (
        cuts.GROUP,
        torn.GROUP,
        records.GROUP,
        second.GROUP,
        flash.GROUP,
        trial.GROUP,
        late.GROUP,
        http.GROUP,
        network.GROUP,
        broker.GROUP,
        hostile.GROUP,
        clock.GROUP,
        memory.GROUP,
        soak.GROUP,
    )
}
