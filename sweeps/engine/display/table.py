"""Tables and texts about finished trials."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table

from memmeta.metric import Metric
from memmeta.system.units import MIB, mib, short
from sweeps.engine.ledger.entry import Entry
from sweeps.engine.study.result import score_keys
from sweeps.engine.study.seeds import over_seeds

_NAMED = 5
"""Maximum number of trials that are named in one line."""


def best_table(metric: Metric, best: Sequence[Entry], confirmed: Sequence[Entry] = ()) -> Table:
    """A table of the best configs, one column each. Six hyperparameters fit into 80 characters.

    Args:
        metric: the study's metric.
        best: trials of explore and search.
        confirmed: trials of confirm. Their means over fresh seeds are shown below the configs.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("best configs")
    for entry in best:
        table.add_column(entry.name, justify="right", no_wrap=True)
    table.add_row(f"validation {metric.title}", *(score(metric, entry) for entry in best))
    table.add_row("peak memory", *map(memory, best))
    for name in dict.fromkeys(name for entry in best for name in entry.params):
        table.add_row(name, *(short(entry.params.get(name)) for entry in best))
    fresh = [[c for c in confirmed if c.params == entry.params] for entry in best]
    if any(fresh):
        table.add_section()
        keys = {"validation": metric.key, "test": score_keys(metric)[0]}
        others = dict.fromkeys(
            name for entry in confirmed for name in entry.reported.get("other_digests", {})
        )
        keys |= {f"test on {name}": score_keys(metric, name)[0] for name in others}
        for title, key in keys.items():
            means = (_mean_over_seeds(metric, key, entries) for entries in fresh)
            table.add_row(f"fresh seeds, {title}", *means)
    return table


def unsolved(entries: Iterable[Entry]) -> str | None:
    """A line that names complete trials with unsolved linear systems; None if there are none."""
    names = [
        entry.name
        for entry in entries
        if entry.status == "complete" and entry.message and not entry.run.learner.learns_nothing
    ]
    if not names:
        return None
    trials = "1 trial" if len(names) == 1 else f"{len(names)} trials"
    more = ", ..." if len(names) > _NAMED else ""
    return f"mean CG residual above 1 in {trials}: {', '.join(names[:_NAMED])}{more}"


def score(metric: Metric, entry: Entry) -> str:
    """The metric of a complete trial, with the half-width of its interval over tasks."""
    metrics = entry.reported["metrics"]
    return metric.rounded(metrics[metric.key], metrics["val_interval"])


def memory(entry: Entry) -> str:
    """The measured peak memory of a trial in MiB."""
    peak = entry.result.get("peak_memory_bytes") if entry.result else None
    if peak is None:
        return "not measured"
    return mib(peak, decimals=0 if peak >= MIB else 1)


def _mean_over_seeds(metric: Metric, key: str, entries: Sequence[Entry]) -> str:
    """Mean over training seeds with the half-width of its 95 % interval, and number of seeds."""
    results = [entry.reported["metrics"] for entry in entries if entry.status == "complete"]
    values = [metrics[key] for metrics in results if key in metrics]
    if not values:
        return ""
    return f"{over_seeds(values).text(metric)} ({len(values)})"
