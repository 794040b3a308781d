"""Finished trials for human eyes."""

from optuna.trial import FrozenTrial
from rich import box
from rich.table import Table

from sweeps.engine.ledger import ranked, result_of


def best_table(trials: list[FrozenTrial], top: int) -> Table:
    """The most accurate trials, a column each: so six hyperparameters fit 80 characters."""
    best = ranked(trials)[:top]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("best configs")
    for trial in best:
        table.add_column(f"trial {trial.number}", justify="right", no_wrap=True)
    table.add_row("validation accuracy", *map(accuracy, best))
    table.add_row("peak memory", *map(memory, best))
    for name in best[0].params:
        table.add_row(name, *(short(trial.params[name]) for trial in best))
    return table


def accuracy(trial: FrozenTrial) -> str:
    """Of a complete trial, with its interval, in per cent."""
    metrics = result_of(trial)["metrics"]
    return f"{100 * metrics['val_accuracy']:.1f} ± {100 * metrics['val_interval']:.1f} %"


def memory(trial: FrozenTrial) -> str:
    """Peak memory, in MiB."""
    peak = result_of(trial)["peak_memory_bytes"]
    return "not measured" if peak is None else f"{peak / 2**20:.0f} MiB"


def short(value: object) -> str:
    """A hyperparameter, to three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
