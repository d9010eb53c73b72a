"""The classes of the campaign, one module each; GROUPS has them in the order of the table."""

from . import cuts, http, network, records, second, torn, trial

GROUPS = {
    group.key: group
    for group in (
        cuts.GROUP,
        torn.GROUP,
        records.GROUP,
        second.GROUP,
        trial.GROUP,
        http.GROUP,
        network.GROUP,
    )
}
