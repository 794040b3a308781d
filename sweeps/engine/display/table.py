"""Finished trials for human eyes."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table

from memmeta.metric import Metric
from sweeps.engine.ledger.ledger import Entry
from sweeps.engine.study.seeds import over_seeds

_NAMED = 5
"""Trials that a line names at most."""


def best_table(metric: Metric, best: Sequence[Entry], confirmed: Sequence[Entry] = ()) -> Table:
    """The best configs, a column each: so six hyperparameters fit 80 characters.

    Args:
        metric: of the study.
        best: trials of explore and search.
        confirmed: trials of confirm; what fresh seeds gave for a config is shown below it.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("best configs")
    for entry in best:
        table.add_column(entry.name, justify="right", no_wrap=True)
    table.add_row(f"validation {metric.title}", *(score(metric, entry) for entry in best))
    table.add_row("peak memory", *map(memory, best))
    for name in dict.fromkeys(name for entry in best for name in entry.params):
        table.add_row(name, *(short(entry.params.get(name, "")) for entry in best))
    seeds = [[c for c in confirmed if c.params == entry.params] for entry in best]
    if any(seeds):
        table.add_section()
        for split in ("val", "test"):
            title = f"fresh seeds, {'validation' if split == 'val' else 'test'}"
            table.add_row(title, *(_of_seeds(metric, split, entries) for entries in seeds))
    return table


def unsolved(entries: Iterable[Entry]) -> str | None:
    """Which complete trials left their linear systems unsolved, in a line; None if none did."""
    names = [e.name for e in entries if e.status == "complete" and (e.result or {}).get("message")]
    if not names:
        return None
    trials = "1 trial" if len(names) == 1 else f"{len(names)} trials"
    more = ", ..." if len(names) > _NAMED else ""
    return f"mean CG residual above 1 in {trials}: {', '.join(names[:_NAMED])}{more}"


def score(metric: Metric, entry: Entry) -> str:
    """The metric of a complete trial, with its interval over tasks."""
    metrics = _metrics(entry)
    return metric.text(metrics[metric.key], metrics["val_interval"], decimals=1)


def memory(entry: Entry) -> str:
    """Peak memory, in MiB."""
    peak = (entry.result or {}).get("peak_memory_bytes")
    if peak is None:
        return "not measured"
    return f"{peak / 2**20:.{0 if peak >= 2**20 else 1}f} MiB"


def short(value: object) -> str:
    """A hyperparameter, to three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _of_seeds(metric: Metric, split: str, entries: Sequence[Entry]) -> str:
    """Mean over training seeds, the half-width of its 95 % interval, and their number."""
    key = f"{split}_{metric.name}"
    values = [_metrics(entry)[key] for entry in entries if entry.status == "complete"]
    if not values:
        return ""
    return f"{over_seeds(values).text(metric)} ({len(values)})"


def _metrics(entry: Entry) -> dict[str, Any]:
    assert entry.result is not None
    metrics: dict[str, Any] = entry.result["metrics"]
    return metrics
