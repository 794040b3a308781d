"""The budget of a run."""

from typing import Self

from pydantic import Field, model_validator

from memmeta.settings.limits import MOST, MOST_TASKS
from memmeta.settings.records import Config


class TrainingConfig(Config):
    """The budget of a run, and when it is validated.

    Examples:
        >>> TrainingConfig(tasks=3200).amount
        '3200 tasks'
    """

    iterations: int | None = Field(None, ge=1, le=MOST_TASKS)
    """Outer steps; give this or `tasks`."""
    tasks: int | None = Field(None, ge=1, le=MOST_TASKS)
    """Tasks seen in all: outer steps times task_batch, rounded up to whole steps."""
    evaluations: int = Field(4, ge=1, le=MOST)
    """Validations, evenly spaced, the last one at the end."""
    val_tasks: int = Field(200, ge=2, le=1_000_000)
    """Validation episodes, the same ones for every run of a data set."""
    test_tasks: int = Field(600, ge=2, le=1_000_000)
    """Test episodes, the same ones for every run of a data set."""

    @property
    def amount(self) -> str:
        """How much a run trains, in words."""
        return f"{self.iterations} outer steps" if self.iterations else f"{self.tasks} tasks"

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.iterations is None) == (self.tasks is None):
            raise ValueError("give either iterations or tasks")
        return self
