"""Exported runs: configs with their results, as `memmeta export` writes them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from memmeta.config import Config, RunConfig, check_version, completed, parse
from memmeta.errors import InputError, cannot_read
from memmeta.metric import ACCURACY, MSE
from memmeta.registry import search_also
from memmeta.system.plain_yaml import read_yaml


class Confirmed(Config):
    """Results of the same settings with fresh training seeds."""

    seeds: list[int]
    """The seeds of complete runs."""
    val: float
    """Mean over the seeds of the metric on the validation tasks."""
    test: float
    """Mean over the seeds of the metric on the test tasks, which played no part in the choice."""
    others: dict[str, float] = Field(default_factory=dict)
    """Mean over the seeds of the metric on the test tasks of other data sets, by name."""

    @model_serializer(mode="wrap")
    def _without_empty_others(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        return {k: v for k, v in values.items() if k != "others" or v}


class FreshSeed(Config):
    """Predicted result of one more training seed of the same settings.

    A 95 % prediction interval for the metric on the validation tasks.
    """

    expected: float
    """Centre of the interval."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""
    seeds: int
    """Number of training seeds behind it: the fresh ones, or 1, the run's own."""


class Results(Config):
    """Results of a run."""

    val_accuracy: float | None = None
    """Mean accuracy over the validation tasks, for classification."""
    val_mse: float | None = None
    """Mean squared error over the validation tasks, for regression."""
    val_interval: float
    """Half-width of the metric's 95 % confidence interval over tasks."""
    val_tasks: int
    """Number of validation tasks."""
    peak_memory_bytes: int | None
    """Peak memory of a training step; None if the run has a single step."""
    seconds_per_step: float | None
    """Mean wall time of an outer step."""
    confirmed: Confirmed | None = None
    """Results of fresh seeds; None if the run was not confirmed."""
    fresh_seed: FreshSeed | None = None
    """Predicted result of one more seed; None if no config of the sweep had two fresh seeds."""

    @model_serializer(mode="wrap")
    def _one_metric(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        metrics = (ACCURACY.key, MSE.key)
        return {k: v for k, v in values.items() if k not in metrics or v is not None}


class Provenance(Config):
    """Where the results come from."""

    commit: str
    """memmeta's commit, in the form of `git describe --dirty`."""
    hardware: str
    """Device and PyTorch version."""
    threads: int
    """CPU threads. Rounding, and so a run's last digits, depends on their number."""
    data_digest: str
    """SHA-256 of the data set."""
    mlflow_run_id: str
    """MLflow run of the trial."""
    mlflow_parent_run_id: str
    """MLflow run of the sweep."""


class ExportedRun(Config):
    """A config with its results and their provenance."""

    config: RunConfig
    """Everything that determines its numbers."""
    results: Results | None = None
    """None for a config written by hand."""
    provenance: Provenance | None = None
    """None for a config written by hand."""

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_version(cls, values: Any) -> Any:
        # A config written by hand is not a record: missing fields have today's defaults.
        if isinstance(values, dict) and values.get("provenance") and "config" in values:
            return values | {"config": completed(RunConfig, values["config"])}
        return values

    @model_validator(mode="after")
    def _metric_of_the_data(self) -> Self:
        key = self.config.data.metric.key
        if self.results:
            given = self.results.model_dump().keys() & {ACCURACY.key, MSE.key}
            if given != {key}:
                raise ValueError(f"results on {self.config.data.name} should have a {key}")
        return self


class Export(Config):
    """The content of an exported file."""

    version: int = 1
    """See `memmeta.config.RECORD_VERSION`."""
    about: list[str] = Field(default_factory=list)
    """How the runs were chosen, and by which command. In YAML files this is a comment."""
    study: str
    """Name of the study."""
    runs: list[ExportedRun]
    """The best runs, the best first."""


def read_run(path: Path, rank: int = 1) -> ExportedRun:
    """Read one run of an exported file, or a plain config.

    The config may name modules in the folder of the file.

    Args:
        path: a JSON file if its suffix is .json, otherwise a YAML file.
        rank: 1 is the best run.

    Raises:
        InputError: the file cannot be read, a key or value is not accepted, or there is no such
            rank.
    """
    search_also(path.parent)
    values = _read_json(path) if path.suffix.lower() == ".json" else read_yaml(path)
    if not isinstance(values, dict) or "runs" not in values:
        if rank != 1:
            raise InputError(f"{path}: no run of rank {rank}: it is a single config")
        return ExportedRun(config=parse(RunConfig, values, str(path), path.parent))
    check_version(values, str(path))
    runs = parse(Export, values, str(path)).runs
    if not 1 <= rank <= len(runs):
        raise InputError(f"{path}: no run of rank {rank}: it has {len(runs)}")
    return runs[rank - 1]


def _read_json(path: Path) -> object:
    """The content of a JSON file.

    Raises:
        InputError: the file cannot be read, is not JSON, or repeats a key.
    """
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_with_keys_that_differ)
    except OSError as error:
        raise cannot_read(path, error) from None
    except _RepeatedKeyError as error:
        raise InputError(f"{path}: the key {error} is repeated") from None
    except (ValueError, RecursionError) as error:
        line = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"{path}: not a JSON file{line}") from None


class _RepeatedKeyError(Exception):
    """The key."""


def _with_keys_that_differ(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise _RepeatedKeyError(repr(key[:100]))
        values[key] = value
    return values
