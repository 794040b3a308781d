"""Configs of runs: Pydantic models that refuse unknown keys."""

from memmeta.settings.data import DataConfig
from memmeta.settings.learner import LearnerConfig, Scaling
from memmeta.settings.parsing import described, parse
from memmeta.settings.records import (
    RECORD_VERSION,
    Before,
    Config,
    Renamed,
    check_version,
    completed,
    differences,
    names,
    renamed,
    renewed,
    values_before,
)
from memmeta.settings.run import RunConfig
from memmeta.settings.training import TrainingConfig

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
    "differences",
    "names",
    "parse",
    "renamed",
    "renewed",
    "values_before",
]
