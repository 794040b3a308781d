"""The responses that are analysed: metric, peak memory, and time of a step."""

from dataclasses import dataclass
from typing import Literal

from analysis.records.trials import Trial
from memmeta.intervals import with_half_width
from memmeta.metric import Metric
from memmeta.system.units import MIB, short


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
    metric: Metric | None = None
    """The metric, if this is its result on the validation tasks."""

    @property
    def label(self) -> str:
        """Title and unit, for axes."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Which way is better, in Optuna's terms."""
        return self.metric.direction if self.metric else "minimize"

    def value_of(self, trial: Trial) -> float | None:
        """The trial's value in `unit`; None if it is not complete or did not measure it."""
        if trial.status != "complete":
            return None
        if self.metric:
            return None if trial.value is None else self.metric.scale * trial.value
        if self.name == "memory":
            return None if trial.peak_memory_bytes is None else trial.peak_memory_bytes / MIB
        return trial.seconds_per_step

    def text(self, value: float, half_width: float | None = None) -> str:
        """Format a value in `unit`, without the unit, to the digits that its half-width supports.

        Examples:
            >>> PEAK_MEMORY.text(109.12), STEP_TIME.text(0.2618, 0.0423)
            ('109.1', '0.262 ± 0.042')
        """
        if self.metric:
            scale = self.metric.scale
            interval = None if half_width is None else half_width / scale
            return self.metric.rounded(value / scale, interval, unit=False)
        if half_width is None:
            return f"{value:.1f}" if self.name == "memory" else short(value)
        return with_half_width(value, half_width)


PEAK_MEMORY = Response("memory", "peak memory", "MiB", log=True)
STEP_TIME = Response("time", "time of a step", "s", log=True)


def quality(metric: Metric) -> Response:
    """The response for the metric on the validation tasks."""
    title = f"validation {metric.title}"
    return Response(metric.name, title, metric.unit, log=False, metric=metric)


def responses(metric: Metric) -> tuple[Response, ...]:
    """All responses of a sweep with this metric."""
    return quality(metric), PEAK_MEMORY, STEP_TIME
