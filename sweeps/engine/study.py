"""A study: one question to one data set, asked with many configs."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig, parse
from memmeta.errors import InputError

SPACE: Mapping[str, BaseDistribution] = {
    # Standardised features bound the head's Hessian by 2: beyond 1 some tasks begin to oscillate.
    "inner_lr": FloatDistribution(0.03, 3.0, log=True),
    "outer_lr": FloatDistribution(1e-4, 1e-2, log=True),
    "inner_steps": IntDistribution(1, 40, log=True),
    "cg_steps": IntDistribution(1, 20, log=True),
    "task_batch": IntDistribution(2, 32, log=True),
    "ridge": FloatDistribution(1e-4, 1.0, log=True),
}
"""The default space: the quantities that the paper fixes."""


@dataclass(frozen=True)
class Study:
    """What is searched, on what, and with how much.

    Raises:
        InputError: the name cannot be a folder's; data and learner do not go together; a
            dimension of the space is no field of the learner, or its range leaves what that field
            accepts.
    """

    name: str
    """Names the study in the MLflow UI and for the `analysis` commands."""
    data: DataConfig
    """The data set and the shape of its episodes."""
    training: TrainingConfig
    """The default budget of a trial."""
    trials: int
    """The default number of trials in all."""
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    """Holds what the space leaves out."""
    space: Mapping[str, BaseDistribution] = field(default_factory=lambda: SPACE)
    """Fields of the learner and where each is searched."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]+", self.name):
            raise InputError(f"study name {self.name!r}: letters, digits, _ and - are accepted")
        self.run_config({}, seed=0)
        for name, distribution in self.space.items():
            for value in _ends(distribution):
                parse(LearnerConfig, self.learner.model_dump() | {name: value}, f"space.{name}")

    def run_config(self, params: Mapping[str, Any], seed: int) -> RunConfig:
        """The run of one point of the space.

        Raises:
            InputError: its settings do not go together.
        """
        values = {
            "data": self.data.model_dump(),
            "learner": self.learner.model_dump() | dict(params),
            "training": self.training.model_dump(),
            "seed": seed,
        }
        return parse(RunConfig, values, f"study {self.name}")

    def settings(self, seed: int) -> dict[str, Any]:
        """What makes the trials of a sweep comparable: all but their number."""
        return {
            "data": self.data.model_dump(),
            "learner": self.learner.model_dump(),
            "training": self.training.model_dump(),
            "seed": seed,
            "space": {k: json.loads(distribution_to_json(d)) for k, d in self.space.items()},
        }

    def sweep_name(self, seed: int) -> str:
        """Names this study with this budget a trial and this seed: a folder and an MLflow run."""
        budget = self.training
        amount = f"{budget.iterations}steps" if budget.iterations else f"{budget.tasks}tasks"
        return f"{self.name}-{amount}-seed{seed}"


def _ends(distribution: BaseDistribution) -> tuple[Any, ...]:
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return distribution.low, distribution.high
    return distribution.choices  # type: ignore[attr-defined]
