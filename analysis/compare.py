"""Comparison of sweeps: best results, results with fresh seeds, memory and time."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from analysis.display.columns import Column, tables
from analysis.formatting import mebibytes, points
from analysis.records.trials import RANKED, Sweep
from analysis.statistics.confirmed import confirmed_configs, mean_selection_bias
from analysis.statistics.factorial import settings
from analysis.statistics.pareto import front, hypervolume, reference
from memmeta.errors import InputError
from memmeta.metric import ACCURACY, MSE, Metric
from memmeta.system.units import short

_LEGEND = """\
Best: of explore and search, one seed, ± over validation tasks. Fresh seeds: mean ± over seeds
(number of seeds) of the confirmed config with the best mean among those with the most seeds; ± over
test tasks: of one trained model. Selection bias: by how much a single seed overstates, mean over
confirmed configs. All intervals are 95 %."""

_UNKNOWN = "–"
"""Printed in place of an unknown value."""

_HEADING_WIDTH = 16
"""Characters in a line of a heading. The result of fresh seeds needs as many."""


@dataclass(frozen=True)
class Row:
    """One algorithm in one sweep. Unknown values are None; every interval is a half-width."""

    study: str
    """Name of the study."""
    sweep: str
    """Name of the sweep: the study with budget and seed."""
    dataset: str
    """Name of the data set."""
    algorithm: str
    """`LearnerConfig.algorithm`."""
    metric: str
    """Name of the metric: `accuracy`, a share from 0 to 1, or `mse`."""
    complete: int
    """Number of complete trials of explore and search."""
    trials: int
    """Number of all trials of explore and search."""
    best: float | None
    """Metric of the best trial on the validation tasks, with its single seed."""
    best_interval: float | None
    """95 % interval of `best` over validation tasks."""
    seeds: int
    """Number of fresh seeds of the best confirmed config: of the configs with the most seeds, the
    one with the best mean on the validation tasks."""
    val: float | None
    """That mean."""
    val_seed_interval: float | None
    """95 % interval of `val` over training seeds."""
    test: float | None
    """Mean on the test tasks over the same seeds."""
    test_seed_interval: float | None
    """95 % interval of `test` over training seeds."""
    test_task_interval: float | None
    """95 % interval over test tasks of one trained model."""
    selection_bias: float | None
    """By how much a single seed overstates, mean over the confirmed configs."""
    peak_memory_bytes: int | None
    """Peak memory of the best trial."""
    least_memory_bytes: int | None
    """Smallest peak memory on the Pareto front of metric and memory."""
    seconds_per_step: float | None
    """Time of an outer step of the best trial."""
    hypervolume: float | None
    """Hypervolume of the ranking, with the reference of `analysis.statistics.pareto.reference`."""


def rows(sweeps: Iterable[Sweep]) -> list[Row]:
    """One row per sweep and algorithm: sweeps in the given order, algorithms by name.

    Raises:
        InputError: a sweep has no trials of explore and search.
    """
    return [_row(subset) for sweep in sweeps for subset in _by_algorithm(sweep)]


def differences(sweeps: Sequence[Sweep]) -> str | None:
    """One line that names the conditions in which the sweeps differ; None if there are none."""
    conditions = [_conditions(sweep) for sweep in sweeps]
    names = dict.fromkeys(name for known in conditions for name in known)
    differing = []
    for name in names:
        values = [known[name] for known in conditions if name in known]
        if any(value != values[0] for value in values):
            shown = (known.get(name) for known in conditions)
            differing.append(f"{name} {' / '.join('–' if v is None else str(v) for v in shown)}")
    return f"the sweeps differ in {', '.join(differing)}" if differing else None


def show(console: Console, rows: Sequence[Row]) -> None:
    """Print one column per row, as several tables below each other if the console is narrow."""
    lines = [_lines(row) for row in rows]
    naming = [Column("", list(lines[0]), justify="left")]
    columns = [
        Column(_heading(row), list(cells.values())) for row, cells in zip(rows, lines, strict=True)
    ]
    for table in tables(console, naming, columns):
        console.print(table)
        console.print()
    console.print(" ".join(_LEGEND.splitlines()))


def _by_algorithm(sweep: Sweep) -> list[Sweep]:
    """Split a sweep into one sweep per algorithm."""
    if not sweep.trials_in(*RANKED):
        counts = Counter(trial.stage for trial in sweep.trials)
        others = ", ".join(f"{number} {stage}" for stage, number in counts.items()) or "no trials"
        raise InputError(f"{sweep.name}: no explore or search trials to compare ({others})")
    algorithms = sorted({trial.config.learner.algorithm for trial in sweep.trials_in(*RANKED)})
    return [
        replace(
            sweep, trials=tuple(t for t in sweep.trials if t.config.learner.algorithm == algorithm)
        )
        for algorithm in algorithms
    ]


def _row(sweep: Sweep) -> Row:
    candidates, ranking = sweep.trials_in(*RANKED), sweep.ranking
    config = candidates[0].config
    best = ranking[0] if ranking else None
    fresh = next(iter(confirmed_configs(sweep)), None)
    pareto = front(ranking)
    return Row(
        study=sweep.study,
        sweep=sweep.name,
        dataset=config.data.name,
        algorithm=config.learner.algorithm,
        metric=sweep.metric.name,
        complete=sum(trial.status == "complete" for trial in candidates),
        trials=len(candidates),
        best=best.value if best else None,
        best_interval=best.val_interval if best else None,
        seeds=len(fresh.seeds) if fresh else 0,
        val=fresh.val.value if fresh else None,
        val_seed_interval=fresh.val.interval if fresh else None,
        test=fresh.test.value if fresh else None,
        test_seed_interval=fresh.test.interval if fresh else None,
        test_task_interval=fresh.task_interval if fresh else None,
        selection_bias=mean_selection_bias(sweep),
        peak_memory_bytes=best.peak_memory_bytes if best else None,
        least_memory_bytes=pareto[0].peak_memory_bytes if pareto else None,
        seconds_per_step=best.seconds_per_step if best else None,
        hypervolume=hypervolume(pareto, reference(config.data)) if pareto else None,
    )


def _conditions(sweep: Sweep) -> dict[str, object]:
    """The conditions that two sweeps must share for their results to be comparable.

    Excludes learner fields without effect, and the algorithm, which has its own rows.
    """
    config = sweep.trials[0].config
    data = config.data.model_dump(exclude={"name"})
    budget = config.training.model_dump()
    digests = {trial.data_digest for trial in sweep.trials if trial.data_digest}
    machines = {trial.hardware for trial in sweep.trials if trial.hardware}
    versions = [config.data.name, *(digest[:8] for digest in sorted(digests))]
    return {
        "dataset": " ".join(versions),
        **data,
        **_learner(sweep),
        **budget,
        "memory limit": _limit(sweep),
        "hardware": " and ".join(sorted(machines)),
    }


def _learner(sweep: Sweep) -> dict[str, object]:
    """Each learner field with its value in explore and search, or `varied`."""
    fields: dict[str, object] = {}
    for trial in sweep.trials_in(*RANKED):
        for name, value in settings(trial).items():
            fields[name] = value if fields.get(name, value) == value else "varied"
    return {name: value for name, value in fields.items() if name != "algorithm"}


def _limit(sweep: Sweep) -> str | None:
    limit = sweep.memory_limit
    return None if limit is None else f"{mebibytes(limit)} MiB"


def _heading(row: Row) -> str:
    return "\n".join([*textwrap.wrap(row.sweep, _HEADING_WIDTH), row.algorithm])


def _lines(row: Row) -> dict[str, str]:
    """The cells of a row by their labels. At most 23 characters each, for 40 columns."""
    return {
        "data set": row.dataset,
        "complete trials": f"{row.complete} of {row.trials}",
        "best, validation": _score(row, row.best, row.best_interval),
        "  peak memory, MiB": mebibytes(row.peak_memory_bytes),
        "  seconds per step": short(row.seconds_per_step),
        "fresh seeds, validation": _fresh(row, row.val, row.val_seed_interval),
        "fresh seeds, test": _fresh(row, row.test, row.test_seed_interval),
        "  ± over test tasks": _difference(row, row.test_task_interval),
        "selection bias": _difference(row, row.selection_bias),
        "least MiB on the front": mebibytes(row.least_memory_bytes),
        "hypervolume": short(row.hypervolume),
    }


def _fresh(row: Row, value: float | None, interval: float | None) -> str:
    return _UNKNOWN if value is None else f"{_score(row, value, interval)} ({row.seeds})"


def _score(row: Row, value: float | None, interval: float | None) -> str:
    return _UNKNOWN if value is None else _metric(row).rounded(value, interval)


def _difference(row: Row, value: float | None) -> str:
    return _UNKNOWN if value is None else points(_metric(row), value)


def _metric(row: Row) -> Metric:
    return next(metric for metric in (ACCURACY, MSE) if metric.name == row.metric)
