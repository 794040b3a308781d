"""Trials as the rest of the program sees them."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna

from memmeta.config import RunConfig
from sweeps.engine.study.outcome import FINAL, Stage, Status
from sweeps.engine.study.result import TrialResult
from sweeps.engine.study.space import params_key


@dataclass(frozen=True)
class Slot:
    """Identifies a trial in a sweep. A trial that runs again keeps its slot."""

    stage: Stage
    index: int
    """Index in the stage, from 0."""


@dataclass(frozen=True)
class Entry:
    """A trial as recorded in the ledger."""

    stage: Stage
    index: int
    """Index in the stage, from 0."""
    params: dict[str, Any]
    """Params from the search space or grid."""
    run: RunConfig
    """The config to train."""
    status: Status
    result: TrialResult | None
    """The last reported result."""

    @property
    def slot(self) -> Slot:
        """Identifies the trial in the sweep."""
        return Slot(self.stage, self.index)

    @property
    def name(self) -> str:
        """Name for users, such as `explore 007`."""
        return f"{self.stage} {self.index:03d}"

    @property
    def finished(self) -> bool:
        """Whether the trial has its final result."""
        return self.status in FINAL

    @cached_property
    def key(self) -> str:
        """`RunConfig.key`, computed once."""
        return self.run.key

    @cached_property
    def params_key(self) -> Hashable:
        """`space.params_key` of the params, computed once."""
        return params_key(self.params)

    @property
    def reported(self) -> TrialResult:
        """The last reported result.

        Raises:
            LookupError: the trial has not reported yet.
        """
        if self.result is None:
            raise LookupError(f"{self.name} has no result")
        return self.result

    @property
    def message(self) -> str | None:
        """`TrialResult.message`, if there is one."""
        return self.result.get("message") if self.result else None

    @property
    def refused(self) -> bool:
        """Whether the trial was never started because it needs more memory than there is."""
        return self.status == "out_of_memory" and "hardware" not in (self.result or {})


@dataclass(eq=False)
class RunningTrial:
    """A trial that this process runs."""

    stage: Stage
    index: int
    """Index in the stage, from 0."""
    run: RunConfig
    """The config to train."""
    optuna_trial: optuna.Trial
    """Its record in the stage's Optuna study."""
    recorded: int = 0
    """How many of its validations are in the ledger."""
    shown_to_pruner: int = 0
    """How many of its validations the pruner has seen."""

    @property
    def slot(self) -> Slot:
        """Identifies the trial in the sweep."""
        return Slot(self.stage, self.index)
