"""Configs with the results they gave: what `analysis export` writes and `memmeta train` reads."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from memmeta.config import Config, RunConfig, check_version, completed, parse
from memmeta.errors import InputError
from memmeta.metric import ACCURACY, MSE
from memmeta.system.plain_yaml import read_yaml


class Confirmed(Config):
    """What the same settings gave with fresh training seeds."""

    seeds: list[int]
    """Those that ended well."""
    val: float
    """Mean over the seeds of the metric on the validation tasks."""
    test: float
    """Likewise on the test tasks, which had no part in the choice of the run."""


class FreshSeed(Config):
    """What one more training seed of the same settings is expected to give.

    A prediction interval: with 95 % it holds the metric on the validation tasks of one seed that
    nobody has trained yet.
    """

    expected: float
    """Its centre."""
    low: float
    """Its lower end."""
    high: float
    """Its upper end."""
    seeds: int
    """Training seeds of these settings that it stands on: the fresh ones, or 1, the run's own."""


class Results(Config):
    """What a run gave."""

    val_accuracy: float | None = None
    """Of classification: mean over the validation tasks."""
    val_mse: float | None = None
    """Of regression: likewise."""
    val_interval: float
    """Half-width of its 95 % confidence interval over tasks."""
    val_tasks: int
    """Number of validation tasks."""
    peak_memory_bytes: int | None
    """Peak memory of a training step; None for a run of one step, which has no warm step."""
    seconds_per_step: float | None
    """Mean wall time of an outer step."""
    confirmed: Confirmed | None = None
    """What fresh seeds gave; None for a run that was not confirmed."""
    fresh_seed: FreshSeed | None = None
    """What one more is expected to give; None where no config of the sweep had two fresh seeds."""

    @model_serializer(mode="wrap")
    def _one_metric(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        metrics = (ACCURACY.key, MSE.key)
        return {k: v for k, v in values.items() if k not in metrics or v is not None}


class Provenance(Config):
    """Where the results come from."""

    commit: str
    """Of memmeta, as `git describe --dirty` has it."""
    hardware: str
    """Device and PyTorch version."""
    threads: int
    """CPU threads: rounding, and so a run's last digits, depends on their number."""
    data_digest: str
    """SHA-256 of the data set."""
    mlflow_run_id: str
    """The trial's run."""
    mlflow_parent_run_id: str
    """The sweep's run."""


class ExportedRun(Config):
    """A run that can be repeated, and what it gave the first time."""

    config: RunConfig
    """Everything that decides its numbers."""
    results: Results | None = None
    """None for a config that somebody wrote by hand."""
    provenance: Provenance | None = None
    """Likewise."""

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_version(cls, values: Any) -> Any:
        # A config that somebody wrote by hand is no record: missing fields have today's defaults.
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
    """The content of an exported file: the best runs of a study, the best first."""

    version: int = 1
    """See `memmeta.config.RECORD_VERSION`."""
    about: list[str] = Field(default_factory=list)
    """How and by which command the runs were chosen. Only JSON has it; YAML has comments."""
    study: str
    """Name of the study."""
    runs: list[ExportedRun]
    """Ranked."""


def read_run(path: Path, rank: int = 1) -> ExportedRun:
    """The run at `rank` (1 is the best) of an exported file, or the one of a plain config.

    Args:
        path: a JSON file if its suffix is .json, otherwise a YAML file.
        rank: from 1.

    Raises:
        InputError: the file is neither, a key or value is not accepted, or it has fewer runs.
    """
    values = _read_json(path) if path.suffix.lower() == ".json" else read_yaml(path)
    if not isinstance(values, dict) or "runs" not in values:
        if rank != 1:
            raise InputError(f"{path}: no run of rank {rank}, it is a single config")
        return ExportedRun(config=parse(RunConfig, values, str(path)))
    check_version(values, str(path))
    runs = parse(Export, values, str(path)).runs
    if not 1 <= rank <= len(runs):
        raise InputError(f"{path}: no run of rank {rank}, it has {len(runs)}")
    return runs[rank - 1]


def _read_json(path: Path) -> object:
    """The content of a JSON file.

    Raises:
        InputError: it cannot be read, is not JSON, or has a key twice.
    """
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_with_keys_that_differ)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except _RepeatedKeyError as error:
        raise InputError(f"{path}: the key {error} is there twice") from None
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
