"""Sweeps side by side: what each found, what fresh seeds say of it, and what it took."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from analysis.records.table import Column, mebibytes, short, tables
from analysis.records.trials import RANKED, Sweep
from analysis.statistics.confirmed import confirmed, mean_optimism
from analysis.statistics.factorial import settings
from analysis.statistics.pareto import front, hypervolume, reference
from memmeta.errors import InputError
from memmeta.metric import ACCURACY, MSE, Metric

_LEGEND = """\
best: one seed, of explore and search, ± over validation tasks; fresh val, fresh test: mean of
fresh seeds of the config that is best with them (of those with most seeds), ± over these (their
number); tasks: ± over test tasks of one trained model; optimism: what one seed overstates, mean of
the confirmed configs; peak, s/step: of the best; least: the smallest peak on the Pareto front. All
at 95 %."""


@dataclass(frozen=True)
class Row:
    """One algorithm in one sweep. What is not known is None."""

    study: str
    """Name of the study."""
    sweep: str
    """The study with budget and seed."""
    dataset: str
    """The data set."""
    algorithm: str
    """`LearnerConfig.algorithm`."""
    metric: str
    """Name of what the values are of: accuracy as a share, or mse."""
    complete: int
    """Trials of explore and search that ended well."""
    trials: int
    """All trials of explore and search."""
    best: float | None
    """Metric on the validation tasks of the first in the ranking, with its one seed."""
    best_interval: float | None
    """Half-width of its 95 % interval over validation tasks."""
    seeds: int
    """Fresh seeds of the confirmed config with the best mean on the validation tasks, of those
    with most seeds."""
    val: float | None
    """That mean."""
    val_seed_interval: float | None
    """Half-width of its 95 % interval over training seeds."""
    test: float | None
    """Mean over the same seeds on the test tasks."""
    test_seed_interval: float | None
    """Half-width of its 95 % interval over training seeds."""
    test_task_interval: float | None
    """Half-width of the 95 % interval over test tasks of one trained model."""
    optimism: float | None
    """By how much one seed overstates, in the unit of the metric, mean over confirmed configs."""
    peak_memory_bytes: int | None
    """Of the first in the ranking."""
    least_memory_bytes: int | None
    """The smallest peak on the Pareto front of metric and peak memory."""
    seconds_per_step: float | None
    """Of the first in the ranking."""
    hypervolume: float | None
    """Of the ranking, with the reference of `analysis.statistics.pareto.reference`."""


def rows(sweeps: Iterable[Sweep]) -> list[Row]:
    """A row for each algorithm in each sweep, in the order of both.

    Raises:
        InputError: a sweep has no trials of explore and search.
    """
    return [_row(part) for sweep in sweeps for part in _by_algorithm(sweep)]


def differences(sweeps: Sequence[Sweep]) -> str | None:
    """One line on what keeps numbers of the sweeps from being compared, if anything does."""
    facts = [_facts(sweep) for sweep in sweeps]
    names = dict.fromkeys(name for known in facts for name in known)
    differing = []
    for name in names:
        values = [known[name] for known in facts if name in known]
        if any(value != values[0] for value in values):
            shown = (known.get(name) for known in facts)
            differing.append(f"{name} {' / '.join('–' if v is None else str(v) for v in shown)}")
    return f"the sweeps differ in {', '.join(differing)}" if differing else None


def show(console: Console, rows: Sequence[Row]) -> None:
    """Print the rows as a table, or where the console is narrow as several."""
    naming = [
        Column("sweep", [row.sweep for row in rows]),
        Column("algorithm", [row.algorithm for row in rows]),
    ]
    for table in tables(console, naming, _columns(rows)):
        console.print(table)
    console.print(f"\n{' '.join(_LEGEND.splitlines())}")


def _by_algorithm(sweep: Sweep) -> list[Sweep]:
    """The sweep, as if each of its algorithms had been a sweep of its own."""
    if not sweep.of(*RANKED):
        counts = Counter(trial.stage for trial in sweep.trials)
        others = ", ".join(f"{number} {stage}" for stage, number in counts.items()) or "no trials"
        raise InputError(f"{sweep.name}: no explore or search trials to compare ({others})")
    found = sorted({trial.config.learner.algorithm for trial in sweep.of(*RANKED)})
    return [
        replace(
            sweep, trials=tuple(t for t in sweep.trials if t.config.learner.algorithm == algorithm)
        )
        for algorithm in found
    ]


def _row(sweep: Sweep) -> Row:
    candidates, complete = sweep.of(*RANKED), sweep.complete
    config = candidates[0].config
    best = complete[0] if complete else None
    fresh = next(iter(confirmed(sweep)), None)
    pareto = front(complete)
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
        optimism=mean_optimism(sweep),
        peak_memory_bytes=best.peak_memory_bytes if best else None,
        least_memory_bytes=pareto[0].peak_memory_bytes if pareto else None,
        seconds_per_step=best.seconds_per_step if best else None,
        hypervolume=hypervolume(pareto, reference(config.data)) if pareto else None,
    )


def _facts(sweep: Sweep) -> dict[str, object]:
    """What numbers of two sweeps should share to be compared.

    Fields of the learner that have no effect in a sweep are not among them, and the algorithm is
    not, of which each row is.
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
    """The value of each field of the learner in explore and search, or that it varies."""
    found: dict[str, object] = {}
    for trial in sweep.of(*RANKED):
        for name, value in settings(trial).items():
            found[name] = value if found.get(name, value) == value else "varied"
    return {name: value for name, value in found.items() if name != "algorithm"}


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
        Column("optimism", [_difference(row, row.optimism, "") for row in rows]),
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
    """A number in the unit of the metric that is no value of it; `sign` stands before it."""
    if value is None:
        return ""
    metric = _metric(row)
    number = f"{100 * value:.2f} {metric.unit}" if metric.unit else f"{value:#.2g}"
    return f"{sign} {number}".strip()


def _metric(row: Row) -> Metric:
    return next(metric for metric in (ACCURACY, MSE) if metric.name == row.metric)
