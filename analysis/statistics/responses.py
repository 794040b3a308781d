"""What is asked of a trial: its metric, its peak memory, the time of its steps."""

from dataclasses import dataclass
from typing import Literal

from analysis.records.trials import Trial
from memmeta.metric import Metric


@dataclass(frozen=True)
class Response:
    """A number that every trial which ended well has."""

    name: Literal["accuracy", "mse", "memory", "time"]
    """In file and column names."""
    title: str
    """For readers."""
    unit: str
    """Of `of`."""
    log: bool
    """Whether it is modelled, and drawn, as its logarithm: sizes and times are products."""

    @property
    def label(self) -> str:
        """Title and unit, as an axis has them."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def of(self, trial: Trial) -> float | None:
        """The number in `unit`; None of a trial that did not end well, or did not measure it."""
        if trial.status != "complete":
            return None
        if self.name == "memory":
            return None if trial.peak_memory_bytes is None else trial.peak_memory_bytes / 2**20
        if self.name == "time":
            return trial.seconds_per_step
        scale = 100 if self.unit else 1
        return None if trial.value is None else scale * trial.value


PEAK_MEMORY = Response("memory", "peak memory", "MiB", log=True)
STEP_TIME = Response("time", "time of a step", "s", log=True)


def quality(metric: Metric) -> Response:
    """The metric on the validation tasks."""
    return Response(metric.name, f"validation {metric.title}", metric.unit, log=False)


def responses(metric: Metric) -> tuple[Response, ...]:
    """All three."""
    return quality(metric), PEAK_MEMORY, STEP_TIME
