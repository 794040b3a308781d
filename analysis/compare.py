"""Comparison of sweeps: best results, results with fresh seeds, memory and time."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from analysis.display.columns import Column, tables
from analysis.formatting import mebibytes
from analysis.records.trials import RANKED, Sweep
from analysis.statistics.confirmed import confirmed_configs, mean_selection_bias
from analysis.statistics.factorial import settings
from analysis.statistics.pareto import front, hypervolume, reference
from memmeta.errors import InputError
from memmeta.metric import ACCURACY, MSE, Metric
from memmeta.system.units import short

_LEGEND = """\
best: best trial of explore and search, one seed, ± over validation tasks; fresh val, fresh test:
mean over fresh seeds, ± over these seeds (number of seeds), of the confirmed config with the best
mean among those with the most seeds; tasks: ± over test tasks of one trained model; selection bias:
by how much a single seed overstates, mean over confirmed configs; peak, s/step: of the best trial;
least: smallest peak on the Pareto front. All intervals are 95 %."""


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
    """Print the rows as a table, or as several tables if the console is narrow."""
    naming = [
        Column("sweep", [row.sweep for row in rows]),
        Column("algorithm", [row.algorithm for row in rows]),
    ]
    for table in tables(console, naming, _columns(rows)):
        console.print(table)
    console.print(f"\n{' '.join(_LEGEND.splitlines())}")


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


def _columns(rows: Sequence[Row]) -> list[Column]:
    return [
        Column("data set", [row.dataset for row in rows]),
        Column("complete", [f"{row.complete} of {row.trials}" for row in rows]),
        Column("best", [_score(row, row.best, row.best_interval) for row in rows]),
        Column("fresh val", [_fresh(row, row.val, row.val_seed_interval) for row in rows]),
        Column("fresh test", [_fresh(row, row.test, row.test_seed_interval) for row in rows]),
        Column("tasks", [_difference(row, row.test_task_interval, "±") for row in rows]),
        Column("selection\nbias", [_difference(row, row.selection_bias, "") for row in rows]),
        Column("peak\nMiB", [mebibytes(row.peak_memory_bytes) for row in rows]),
        Column("least\nMiB", [mebibytes(row.least_memory_bytes) for row in rows]),
        Column("s/step", [short(row.seconds_per_step) for row in rows]),
        Column("hyper-\nvolume", [short(row.hypervolume) for row in rows]),
    ]


def _fresh(row: Row, value: float | None, interval: float | None) -> str:
    return "" if value is None else f"{_score(row, value, interval)} ({row.seeds})"


def _score(row: Row, value: float | None, interval: float | None) -> str:
    if value is None:
        return ""
    metric = _metric(row)
    return metric.alone(value) if interval is None else metric.text(value, interval)


def _difference(row: Row, value: float | None, sign: str) -> str:
    """A difference of metric values, in the metric's unit, with `sign` in front."""
    if value is None:
        return ""
    metric = _metric(row)
    number = f"{100 * value:.2f} {metric.unit}" if metric.unit else f"{value:#.2g}"
    return f"{sign} {number}".strip()


def _metric(row: Row) -> Metric:
    return next(metric for metric in (ACCURACY, MSE) if metric.name == row.metric)
