"""The best confirmed trial of a sweep."""

import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable

from memmeta.metric import Metric
from sweeps.engine.ledger.entry import Entry


def best_confirmed(entries: Iterable[Entry], metric: Metric) -> Entry | None:
    """The trial of stage confirm whose model represents the sweep.

    The config is the one with the best mean over fresh seeds on the validation tasks, among those
    with the most complete seeds: a mean over few seeds could be the best by luck. Of its seeds, the
    best one on the validation tasks is selected. Results on test tasks are not used.

    Args:
        entries: trials of stage confirm.
        metric: the study's metric.

    Returns:
        The trial, or None if none is complete.
    """

    def value(entry: Entry) -> float:
        return entry.reported["metrics"][metric.key]

    configs: defaultdict[Hashable, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.status == "complete":
            configs[entry.params_key].append(entry)
    if not configs:
        return None
    best = min(
        configs.values(),
        key=lambda seeds: (-len(seeds), metric.order(statistics.fmean(map(value, seeds)))),
    )
    return min(best, key=lambda entry: metric.order(value(entry)))
