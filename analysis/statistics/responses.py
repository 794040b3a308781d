"""The responses that are analysed: metric, peak memory, and time of a step."""

from dataclasses import dataclass
from typing import Literal

from analysis.records.trials import Trial
from memmeta.metric import Metric
from memmeta.system.units import MIB


@dataclass(frozen=True)
class Response:
    """A measured quantity of complete trials."""

    name: Literal["accuracy", "mse", "memory", "time"]
    """Identifier in file and column names."""
    title: str
    """Name for readers."""
    unit: str
    """Unit of `value_of`; may be empty."""
    log: bool
    """Whether it is modelled and drawn on a logarithmic scale. Memory and time are, since they
    depend multiplicatively on the hyperparameters."""

    @property
    def label(self) -> str:
        """Title and unit, for axes."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def value_of(self, trial: Trial) -> float | None:
        """The trial's value in `unit`; None if it is not complete or did not measure it."""
        if trial.status != "complete":
            return None
        if self.name == "memory":
            return None if trial.peak_memory_bytes is None else trial.peak_memory_bytes / MIB
        if self.name == "time":
            return trial.seconds_per_step
        metric = trial.config.data.metric
        return None if trial.value is None else metric.scale * trial.value


PEAK_MEMORY = Response("memory", "peak memory", "MiB", log=True)
STEP_TIME = Response("time", "time of a step", "s", log=True)


def quality(metric: Metric) -> Response:
    """The response for the metric on the validation tasks."""
    return Response(metric.name, f"validation {metric.title}", metric.unit, log=False)


def responses(metric: Metric) -> tuple[Response, ...]:
    """All responses of a sweep with this metric."""
    return quality(metric), PEAK_MEMORY, STEP_TIME
