"""Configs of runs: Pydantic models that refuse unknown keys."""

from memmeta.config.data import DataConfig
from memmeta.config.learner import LearnerConfig, Scaling
from memmeta.config.parsing import described, parse
from memmeta.config.records import (
    RECORD_VERSION,
    Before,
    Config,
    Renamed,
    check_version,
    completed,
    names,
    renamed,
    renewed,
    values_before,
)
from memmeta.config.run import RunConfig
from memmeta.config.training import TrainingConfig

__all__ = [
    "RECORD_VERSION",
    "Before",
    "Config",
    "DataConfig",
    "LearnerConfig",
    "Renamed",
    "RunConfig",
    "Scaling",
    "TrainingConfig",
    "check_version",
    "completed",
    "described",
    "names",
    "parse",
    "renamed",
    "renewed",
    "values_before",
]
