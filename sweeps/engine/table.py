"""Finished trials for human eyes."""

from optuna.trial import FrozenTrial
from rich import box
from rich.table import Table

from memmeta.metric import Metric
from sweeps.engine.ledger import result_of


def best_table(metric: Metric, best: list[FrozenTrial]) -> Table:
    """The best trials, a column each: so six hyperparameters fit 80 characters."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("best configs")
    for trial in best:
        table.add_column(f"trial {trial.number}", justify="right", no_wrap=True)
    table.add_row(f"validation {metric.title}", *(score(metric, trial) for trial in best))
    table.add_row("peak memory", *map(memory, best))
    for name in best[0].params:
        table.add_row(name, *(short(trial.params[name]) for trial in best))
    return table


def score(metric: Metric, trial: FrozenTrial) -> str:
    """The metric of a complete trial, with its interval."""
    metrics = result_of(trial)["metrics"]
    return metric.text(metrics[metric.key], metrics["val_interval"], decimals=1)


def memory(trial: FrozenTrial) -> str:
    """Peak memory, in MiB."""
    peak = result_of(trial)["peak_memory_bytes"]
    if peak is None:
        return "not measured"
    return f"{peak / 2**20:.{0 if peak >= 2**20 else 1}f} MiB"


def short(value: object) -> str:
    """A hyperparameter, to three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
