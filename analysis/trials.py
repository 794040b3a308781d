"""The trials of a study as records: what every analysis starts from."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from analysis.store import find_runs
from memmeta.config import RunConfig, parse
from memmeta.errors import InputError
from sweeps.engine.outcome import TAGS, Status
from sweeps.engine.store import without_credentials

if TYPE_CHECKING:
    from mlflow.entities import Run

_ORDER: tuple[Status, ...] = (
    "complete",
    "diverged",
    "out_of_memory",
    "running",
    "interrupted",
    "failed",
)

# As `mlflow.utils.mlflow_tags` has it, which is slow to import.
_PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class Trial:
    """One run of a sweep. What it has not reported, or not yet, is None."""

    number: int
    """Its number in the sweep's ledger when it was begun."""
    run_name: str
    """`trial 007`, unless somebody renamed it in MLflow."""
    status: Status
    """How it ended, if it has."""
    key: str
    """Its `RunConfig.key` at the time."""
    config: RunConfig
    """Everything that decides its numbers."""
    value: float | None
    """Its metric (see `DataConfig.metric`) on the validation tasks, at the last validation."""
    val_interval: float | None
    """Half-width of its 95 % confidence interval over tasks."""
    peak_memory_bytes: int | None
    """Peak memory of a training step."""
    seconds_per_step: float | None
    """Mean wall time of an outer step."""
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
    data_digest: str | None
    """SHA-256 of the data set."""


@dataclass(frozen=True)
class Sweep:
    """A study as it was run with one budget and one seed."""

    study: str
    """Name of the study."""
    name: str
    """The study with budget and seed."""
    trials: tuple[Trial, ...]
    """All of them, ranked."""
    others: tuple[str, ...]
    """Further sweeps that the same words could have meant, as they can be named instead."""

    @property
    def complete(self) -> tuple[Trial, ...]:
        """The trials that ended well, the best first."""
        return tuple(trial for trial in self.trials if trial.status == "complete")


def read_sweep(uri: str, name: str) -> Sweep:
    """Read a sweep from the MLflow store at `uri`.

    Args:
        uri: the store, a database or a server.
        name: a study, for its most recently started sweep; a sweep, in full; or the id of a
            sweep's run, for there can be two of one name in a shared store.

    Raises:
        InputError: the store cannot be read, or has no such sweep.
    """
    sweeps = find_runs(uri, f"tags.`{TAGS.kind}` = 'sweep'")
    meant = [run for run in sweeps if name in (_study(run), _sweep(run), run.info.run_id)]
    if not meant:
        raise InputError(f"no study or sweep {name} in {_listing(uri, sweeps)}")
    parent = meant.pop()
    parent_id = parent.info.run_id
    children = find_runs(
        uri, f"tags.`{TAGS.kind}` = 'trial' and tags.`{_PARENT_TAG}` = '{parent_id}'"
    )
    return Sweep(
        study=_study(parent),
        name=_sweep(parent),
        trials=ranked(map(_trial, children)),
        others=tuple(_label(run, sweeps) for run in meant),
    )


def ranked(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """Complete ones first, the best at the top; then those without a final result."""
    return tuple(sorted(trials, key=_place))


def _place(trial: Trial) -> tuple[int, float]:
    return _ORDER.index(trial.status), trial.config.data.metric.order(trial.value)


def _trial(run: "Run") -> Trial:
    tags, metrics = run.data.tags, run.data.metrics
    name = run.info.run_name
    source = f"{name} (MLflow run {run.info.run_id})"
    peak = metrics.get("peak_memory_mib")
    threads = tags.get(TAGS.threads)
    config = parse(RunConfig, json.loads(tags[TAGS.config]), source)
    return Trial(
        number=int(tags[TAGS.number]),
        run_name=name,
        status=cast(Status, tags[TAGS.status]),
        key=tags[TAGS.key],
        config=config,
        value=metrics.get(config.data.metric.key),
        val_interval=metrics.get("val_interval"),
        # MLflow holds floats, and dividing by a power of two lost no digit.
        peak_memory_bytes=None if peak is None else round(peak * 2**20),
        seconds_per_step=metrics.get("seconds_per_step"),
        run_id=run.info.run_id,
        parent_run_id=tags[_PARENT_TAG],
        commit=tags.get(TAGS.commit),
        hardware=tags.get(TAGS.hardware),
        threads=None if threads is None else int(threads),
        data_digest=tags.get(TAGS.data_digest),
    )


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
    place = without_credentials(uri)
    if not sweeps:
        return f"{place}, which has none"
    of_study: dict[str, list[str]] = {}
    for run in sweeps:
        of_study.setdefault(_study(run), []).append(_label(run, sweeps))
    studies = (f"{study} (sweeps: {', '.join(names)})" for study, names in of_study.items())
    return f"{place}; it has {'; '.join(studies)}"
