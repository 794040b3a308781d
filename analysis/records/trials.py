"""The trials of a study as records: what every analysis starts from."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

from analysis.records.store import find_runs
from memmeta.config import RunConfig, completed, parse
from memmeta.errors import InputError
from memmeta.metric import Metric
from sweeps.engine.stores.masking import masked
from sweeps.engine.study.outcome import INFEASIBLE, TAGS, Stage, Status

if TYPE_CHECKING:
    from mlflow.entities import Run
    from optuna.distributions import BaseDistribution

RANKED: tuple[Stage, ...] = ("explore", "search")
"""Stages with one training seed, whose trials are candidates for the best config."""

BLOCKS: tuple[tuple[Stage, ...], ...] = (RANKED, ("confirm",), ("tune",), ("grid",))
"""Stages whose trials stand together."""

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


@dataclass(frozen=True)
class Trial:
    """One run of a sweep. What it has not reported, or not yet, is None."""

    stage: Stage
    """What it is for."""
    index: int
    """Its place in its stage, from 0."""
    run_name: str
    """`explore 007`, unless somebody renamed it in MLflow."""
    status: Status
    """How it ended, if it has."""
    message: str | None
    """Why it did not end well."""
    key: str
    """Its `RunConfig.key` at the time."""
    config: RunConfig
    """Everything that decides its numbers."""
    value: float | None
    """Its metric (see `DataConfig.metric`) on the validation tasks, at the last validation."""
    val_interval: float | None
    """Half-width of its 95 % confidence interval over tasks."""
    test_value: float | None
    """Its metric on the test tasks, which only trials of stage confirm see."""
    test_interval: float | None
    """Likewise of `test_value`."""
    peak_memory_bytes: int | None
    """Peak memory of a training step."""
    predicted_memory_bytes: int | None
    """The same, predicted before it ran."""
    reserved_memory_bytes: int | None
    """What it was given of a device's memory."""
    seconds_per_step: float | None
    """Mean wall time of an outer step."""
    seconds: float | None
    """Wall time of the whole trial."""
    run_id: str
    """Its MLflow run."""
    parent_run_id: str
    """The sweep's MLflow run."""
    commit: str | None
    """Of the code that ran it."""
    hardware: str | None
    """Device and PyTorch version."""
    threads: int | None
    """CPU threads."""
    gpus: float | None
    """The share of a GPU that it had, or 0."""
    data_digest: str | None
    """SHA-256 of the data set."""

    @property
    def device_hours(self) -> float | None:
        """Hours of a GPU that it took, or of a CPU core where it had no GPU."""
        devices = self.gpus or self.threads
        return None if self.seconds is None or not devices else self.seconds * devices / 3600


@dataclass(frozen=True)
class Sweep:
    """A study as it was run with one budget and one seed."""

    study: str
    """Name of the study."""
    name: str
    """The study with budget and seed."""
    trials: tuple[Trial, ...]
    """Those of `RANKED` from the best on, those without a final result last; then the other
    stages', by index."""
    settings: Mapping[Stage, Mapping[str, Any]]
    """What makes the trials of a stage comparable: `Study.settings`, the space among them."""
    others: tuple[str, ...]
    """Further sweeps that the same words could have meant, as they can be named instead."""

    @property
    def space(self) -> "dict[str, BaseDistribution]":
        """Where explore and search looked: fields of the learner. Empty without these stages."""
        # Takes most of a second.
        from sweeps.engine.study.dimension import dimension

        found: dict[str, BaseDistribution] = {}
        for stage in RANKED:
            for name, value in self.settings.get(stage, {}).get("space", {}).items():
                found.setdefault(name, dimension(name, value))
        return found

    @property
    def memory_limit(self) -> int | None:
        """Bytes that the peak of a feasible trial stays within, if the sweep had a limit."""
        stages: tuple[Stage, ...] = ("search", "confirm")
        limits = (self.settings.get(stage, {}).get("memory_limit") for stage in stages)
        return next((limit for limit in limits if limit is not None), None)

    @property
    def metric(self) -> Metric:
        """What its trials are judged by."""
        return self.trials[0].config.data.metric

    @property
    def complete(self) -> tuple[Trial, ...]:
        """The ranking: those of explore and search that ended well, the best first.

        Those over the memory limit are not in it: as in the search, by the predicted peak where
        none was measured.
        """
        ended_well = (trial for trial in self.of(*RANKED) if trial.status == "complete")
        limit = self.memory_limit
        return tuple(
            trial
            for trial in ended_well
            if limit is None
            or (trial.peak_memory_bytes or trial.predicted_memory_bytes or 0) <= limit
        )

    def of(self, *stages: Stage) -> tuple[Trial, ...]:
        """The trials of some stages."""
        return tuple(trial for trial in self.trials if trial.stage in stages)


def read_sweep(uri: str, name: str) -> Sweep:
    """Read a sweep from the MLflow store at `uri`.

    Args:
        uri: the store, a database or a server.
        name: a study, for the sweep of it that ran last; a sweep, in full; or the id of a
            sweep's run.

    Raises:
        InputError: the store cannot be read, or has no such sweep.
    """
    sweeps = sorted(find_runs(uri, f"tags.`{TAGS.kind}` = 'sweep'"), key=_last_ran)
    meant = [run for run in sweeps if name in (_study(run), _sweep(run), run.info.run_id)]
    if not meant:
        raise InputError(f"no study or sweep {name} in {_listing(uri, sweeps)}")
    parent = meant.pop()
    parent_id = parent.info.run_id
    children = find_runs(
        uri, f"tags.`{TAGS.kind}` = 'trial' and tags.`{TAGS.parent}` = '{parent_id}'"
    )
    return Sweep(
        study=_study(parent),
        name=_sweep(parent),
        trials=ordered(map(_trial, children)),
        settings=json.loads(parent.data.tags[TAGS.settings]),
        others=tuple(_label(run, sweeps) for run in meant),
    )


def _last_ran(sweep: "Run") -> tuple[int, float, int]:
    """Sorts sweeps by their last start or end. Clocks count only for sweeps of older versions.

    Those have no number and come first.
    """
    ended = float("inf") if sweep.info.end_time is None else sweep.info.end_time
    return int(sweep.data.tags.get(TAGS.sequence, 0)), ended, sweep.info.start_time


def ordered(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """The trials of a sweep in the order of `Sweep.trials`."""
    return tuple(sorted(trials, key=_place))


def _place(trial: Trial) -> tuple[float, ...]:
    """Sorts the trials of a sweep."""
    place = _STAGES.index(trial.stage), trial.index
    if trial.stage not in RANKED:
        return place
    return 0, _ORDER.index(trial.status), trial.config.data.metric.order(trial.value), *place


def _trial(run: "Run") -> Trial:
    tags, metrics = run.data.tags, run.data.metrics
    name = run.info.run_name
    source = f"{name} (MLflow run {run.info.run_id})"
    threads, gpus = tags.get(TAGS.threads), tags.get(TAGS.gpus)
    config = parse(RunConfig, completed(RunConfig, json.loads(tags[TAGS.config])), source)
    status = cast(Status, tags[TAGS.status])
    return Trial(
        stage=cast(Stage, tags[TAGS.stage]),
        index=int(tags[TAGS.index]),
        run_name=name,
        status=status,
        # The tag stays where a trial that failed was begun again.
        message=tags.get(TAGS.message) if status in (*INFEASIBLE, "failed") else None,
        key=tags[TAGS.key],
        config=config,
        value=metrics.get(config.data.metric.key),
        val_interval=metrics.get("val_interval"),
        test_value=metrics.get(f"test_{config.data.metric.name}"),
        test_interval=metrics.get("test_interval"),
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
    )


def _bytes(metrics: Mapping[str, float], name: str) -> int | None:
    size = metrics.get(f"{name}_memory_mib")
    # MLflow holds floats, and dividing by a power of two lost no digit.
    return None if size is None else round(size * 2**20)


def _study(run: "Run") -> str:
    return str(run.data.tags[TAGS.study])


def _sweep(run: "Run") -> str:
    return str(run.data.tags[TAGS.sweep])


def _label(run: "Run", sweeps: "list[Run]") -> str:
    """The sweep's name, or its id where that name is another sweep's too."""
    name = _sweep(run)
    alone = sum(_sweep(other) == name for other in sweeps) == 1
    return name if alone else f"{run.info.run_id} ({name})"


def _listing(uri: str, sweeps: "list[Run]") -> str:
    place = masked(uri)
    if not sweeps:
        return f"{place}, which has none"
    of_study: dict[str, list[str]] = {}
    for run in sweeps:
        of_study.setdefault(_study(run), []).append(_label(run, sweeps))
    studies = (f"{study} (sweeps: {', '.join(names)})" for study, names in of_study.items())
    return f"{place}; it has {'; '.join(studies)}"
