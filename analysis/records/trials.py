"""The trials of a sweep as typed records, the input of every analysis."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

from analysis.records.store import find_runs
from memmeta.config import RunConfig, completed, parse
from memmeta.errors import InputError, did_you_mean
from memmeta.metric import Metric
from memmeta.system.units import MIB
from sweeps.engine.stores.masking import masked
from sweeps.engine.study.outcome import FINAL, INFEASIBLE, TAGS, Stage, Status, sequence
from sweeps.engine.study.result import score_keys

if TYPE_CHECKING:
    from mlflow.entities import Run
    from optuna.distributions import BaseDistribution

RANKED: tuple[Stage, ...] = ("explore", "search")
"""Stages that share one training seed. Their trials are candidates for the best config."""

BLOCKS: tuple[tuple[Stage, ...], ...] = (RANKED, ("confirm",), ("tune",), ("grid",))
"""Groups of stages whose trials are listed together."""

_STAGES: tuple[Stage, ...] = get_args(Stage)

_ORDER: tuple[Status, ...] = (
    "complete",
    "pruned",
    "diverged",
    "out_of_memory",
    "running",
    "interrupted",
    "failed",
)


class OtherScore(NamedTuple):
    """The metric of a trial on the test tasks of another data set than that of training."""

    value: float | None
    """Mean over tasks; None if it was not finite."""
    interval: float | None
    """Half-width of the 95 % confidence interval of `value` over tasks."""
    data_digest: str
    """SHA-256 of the data set."""


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep. A fact that the trial has not reported is None."""

    stage: Stage
    """The stage that it belongs to."""
    index: int
    """Position within the stage, from 0."""
    run_name: str
    """Name of the MLflow run: `explore 007`, unless a user renamed it."""
    status: Status
    """Whether it is running, or how it ended."""
    message: str | None
    """Why it failed or was infeasible."""
    key: str
    """`RunConfig.key` at the time it ran."""
    config: RunConfig
    """All settings that determine its results."""
    value: float | None
    """The metric (`DataConfig.metric`) on the validation tasks, at the last validation."""
    val_interval: float | None
    """Half-width of the 95 % confidence interval of `value` over tasks."""
    test_value: float | None
    """The metric on the test tasks; only trials of stage confirm are tested."""
    test_interval: float | None
    """Half-width of the 95 % confidence interval of `test_value` over tasks."""
    peak_memory_bytes: int | None
    """Measured peak memory of a training step."""
    predicted_memory_bytes: int | None
    """Peak memory of a training step, predicted before the trial ran."""
    reserved_memory_bytes: int | None
    """Device memory reserved for the trial."""
    seconds_per_step: float | None
    """Mean wall time of an outer step."""
    seconds: float | None
    """Wall time of the whole trial."""
    run_id: str
    """MLflow run of the trial."""
    parent_run_id: str
    """MLflow run of the sweep."""
    commit: str | None
    """Commit of memmeta that ran the trial."""
    hardware: str | None
    """Device and PyTorch version."""
    threads: int | None
    """Number of CPU threads."""
    gpus: float | None
    """Share of a GPU that the trial had, or 0."""
    data_digest: str | None
    """SHA-256 of the data set."""
    others: Mapping[str, OtherScore] = field(default_factory=dict, hash=False)
    """Scores on the data sets of `Study.evaluate_on`, by name; only trials of stage confirm have
    them."""

    @property
    def device_hours(self) -> float | None:
        """GPU-hours that the trial took, or CPU-core-hours if it had no GPU."""
        devices = self.gpus or self.threads
        return None if self.seconds is None or not devices else self.seconds * devices / 3600


@dataclass(frozen=True)
class Sweep:
    """All trials of a study that was run with one budget and one seed."""

    study: str
    """Name of the study."""
    name: str
    """Name of the study with budget and seed: `cifar_fs-60steps-seed0`."""
    trials: tuple[Trial, ...]
    """Trials of explore and search first, from best to worst, those without a final result last.
    Trials of the other stages follow, by index."""
    settings: Mapping[Stage, Mapping[str, Any]]
    """`Study.settings` of each stage, including the space. They are common to all its trials."""
    alternatives: tuple[str, ...]
    """Full names of other sweeps that match the name that the user gave."""
    without_results: tuple[str, ...] = ()
    """Full names of newer ones of them, without any result yet."""

    @property
    def space(self) -> "dict[str, BaseDistribution]":
        """The search space of explore and search, by learner field; empty without these stages."""
        # Imports Optuna, which takes most of a second.
        from sweeps.engine.study.dimension import dimension

        space: dict[str, BaseDistribution] = {}
        for stage in RANKED:
            for name, value in self.settings.get(stage, {}).get("space", {}).items():
                space.setdefault(name, dimension(name, value))
        return space

    @property
    def others(self) -> tuple[str, ...]:
        """The other data sets on which trials were scored, in order of first appearance."""
        return tuple(dict.fromkeys(name for trial in self.trials for name in trial.others))

    @property
    def memory_limit(self) -> int | None:
        """Largest peak memory of a feasible trial in bytes; None if the sweep had no limit."""
        stages: tuple[Stage, ...] = ("search", "confirm")
        limits = (self.settings.get(stage, {}).get("memory_limit") for stage in stages)
        return next((limit for limit in limits if limit is not None), None)

    @property
    def metric(self) -> Metric:
        """The metric that the trials are ranked by."""
        return self.trials[0].config.data.metric

    @property
    def ranking(self) -> tuple[Trial, ...]:
        """The complete trials of explore and search, from best to worst.

        Trials over the memory limit are excluded. As during the search, the predicted peak counts
        if none was measured.
        """
        complete = (trial for trial in self.trials_in(*RANKED) if trial.status == "complete")
        limit = self.memory_limit
        return tuple(
            trial
            for trial in complete
            if limit is None
            or (trial.peak_memory_bytes or trial.predicted_memory_bytes or 0) <= limit
        )

    def trials_in(self, *stages: Stage) -> tuple[Trial, ...]:
        """The trials of these stages, in the order of `trials`."""
        return tuple(trial for trial in self.trials if trial.stage in stages)


def read_sweep(uri: str, name: str) -> Sweep:
    """Read a sweep from the MLflow store at `uri`.

    Args:
        uri: address of a database or a server.
        name: a study, which selects its most recent sweep with a result; the full name of a sweep;
            or the id of a sweep's MLflow run.

    Raises:
        InputError: the store cannot be read or has no such sweep.
    """
    sweeps = sorted(find_runs(uri, f"tags.`{TAGS.kind}` = 'sweep'"), key=_last_ran)
    matches = [run for run in sweeps if name in (_study(run), _sweep(run), run.info.run_id)]
    if not matches:
        known = {*map(_study, sweeps), *map(_sweep, sweeps)}
        raise InputError(
            f"no study or sweep {name}{did_you_mean(name, known)} in {_listing(uri, sweeps)}"
        )
    is_study = name == _study(matches[-1])
    parent, children = _latest(uri, matches if is_study else matches[-1:])
    newer = matches[matches.index(parent) + 1 :]
    with _changed_tags_in_one_line(parent):
        settings = json.loads(parent.data.tags[TAGS.settings])
    return Sweep(
        study=_study(parent),
        name=_sweep(parent),
        trials=ordered(map(_trial, children)),
        settings=settings,
        alternatives=tuple(_label(run, sweeps) for run in matches if run is not parent),
        without_results=tuple(_label(run, sweeps) for run in newer),
    )


def _latest(uri: str, sweeps: "list[Run]") -> "tuple[Run, list[Run]]":
    """The last of the sweeps with a final result, or else the last one, and its trials."""
    for sweep in reversed(sweeps):
        trials = _trials(uri, sweep)
        if any(trial.data.tags.get(TAGS.status) in FINAL for trial in trials):
            return sweep, trials
    return sweeps[-1], _trials(uri, sweeps[-1])


def _trials(uri: str, sweep: "Run") -> "list[Run]":
    parent = f"tags.`{TAGS.parent}` = '{sweep.info.run_id}'"
    return find_runs(uri, f"tags.`{TAGS.kind}` = 'trial' and {parent}")


def _last_ran(sweep: "Run") -> tuple[int, float, int]:
    """Sort key: when a sweep last started or ended.

    Sweeps of older versions have no sequence number. They come first, ordered by their clocks.
    """
    ended = float("inf") if sweep.info.end_time is None else sweep.info.end_time
    return sequence(sweep.data.tags), ended, sweep.info.start_time


def ordered(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """Sort trials into the order of `Sweep.trials`."""
    return tuple(sorted(trials, key=_sort_key))


def _sort_key(trial: Trial) -> tuple[float, ...]:
    position = _STAGES.index(trial.stage), trial.index
    if trial.stage not in RANKED:
        return position
    return 0, _ORDER.index(trial.status), trial.config.data.metric.order(trial.value), *position


@contextmanager
def _changed_tags_in_one_line(run: "Run") -> Iterator[None]:
    """Name the run if somebody removed or changed one of its tags."""
    try:
        yield
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{run.info.run_name} (MLflow run {run.info.run_id}): a tag of memmeta was changed "
            f"({error}). Delete the run in MLflow, and run the sweep again, which writes it again"
        ) from None


def _trial(run: "Run") -> Trial:
    with _changed_tags_in_one_line(run):
        return _as_trial(run)


def _as_trial(run: "Run") -> Trial:
    tags, metrics = run.data.tags, run.data.metrics
    name = run.info.run_name
    source = f"{name} (MLflow run {run.info.run_id})"
    threads, gpus = tags.get(TAGS.threads), tags.get(TAGS.gpus)
    config = parse(RunConfig, completed(RunConfig, json.loads(tags[TAGS.config])), source)
    status = cast(Status, tags[TAGS.status])
    metric = config.data.metric
    test_value, test_interval = score_keys(metric)
    return Trial(
        stage=cast(Stage, tags[TAGS.stage]),
        index=int(tags[TAGS.index]),
        run_name=name,
        status=status,
        # The tag remains after a failed trial was restarted and completed.
        message=tags.get(TAGS.message) if status in (*INFEASIBLE, "failed") else None,
        key=tags[TAGS.key],
        config=config,
        value=metrics.get(metric.key),
        val_interval=metrics.get("val_interval"),
        test_value=metrics.get(test_value),
        test_interval=metrics.get(test_interval),
        peak_memory_bytes=_bytes(metrics, "peak"),
        predicted_memory_bytes=_bytes(metrics, "predicted"),
        reserved_memory_bytes=_bytes(metrics, "reserved"),
        seconds_per_step=metrics.get("seconds_per_step"),
        seconds=metrics.get("seconds"),
        run_id=run.info.run_id,
        parent_run_id=tags[TAGS.parent],
        commit=tags.get(TAGS.commit),
        hardware=tags.get(TAGS.hardware),
        threads=None if threads is None else int(threads),
        gpus=None if gpus is None else float(gpus),
        data_digest=tags.get(TAGS.data_digest),
        others={
            name: _other_score(metrics, metric, name, digest)
            for name, digest in dict(json.loads(tags.get(TAGS.other_digests, "{}"))).items()
        },
    )


def _other_score(
    metrics: Mapping[str, float], metric: Metric, name: str, digest: str
) -> OtherScore:
    value, interval = score_keys(metric, name)
    return OtherScore(metrics.get(value), metrics.get(interval), digest)


def _bytes(metrics: Mapping[str, float], name: str) -> int | None:
    size = metrics.get(f"{name}_memory_mib")
    # MLflow stores floats. Division by a power of two was exact, so this restores the bytes.
    return None if size is None else round(size * MIB)


def _study(run: "Run") -> str:
    return str(run.data.tags[TAGS.study])


def _sweep(run: "Run") -> str:
    return str(run.data.tags[TAGS.sweep])


def _label(run: "Run", sweeps: "list[Run]") -> str:
    """The sweep's name; if other sweeps share it, the run id with the name in parentheses."""
    name = _sweep(run)
    is_unique = sum(_sweep(other) == name for other in sweeps) == 1
    return name if is_unique else f"{run.info.run_id} ({name})"


def _listing(uri: str, sweeps: "list[Run]") -> str:
    """The store with its studies and sweeps, for an error message."""
    store = masked(uri)
    if not sweeps:
        return f"{store}, which has none"
    sweeps_by_study: dict[str, list[str]] = {}
    for run in sweeps:
        sweeps_by_study.setdefault(_study(run), []).append(_label(run, sweeps))
    studies = (f"{study} (sweeps: {', '.join(names)})" for study, names in sweeps_by_study.items())
    return f"{store}; it has {'; '.join(studies)}"
