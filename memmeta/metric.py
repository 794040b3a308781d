"""Metrics of runs: accuracy for classification, squared error for regression."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A mean over evaluation tasks."""

    name: Literal["accuracy", "mse"]
    """Name in keys and columns."""
    title: str
    """Name for readers."""
    direction: Literal["maximize", "minimize"]
    """Which way is better, in Optuna's terms."""
    worst: float
    """The worst possible value."""
    unit: Literal["%", ""]
    """The unit of printed values."""

    @property
    def key(self) -> str:
        """Its name among the results on the validation tasks."""
        return f"val_{self.name}"

    @property
    def scale(self) -> int:
        """Factor from a value to its `unit`: 100 for per cent, else 1."""
        return 100 if self.unit else 1

    def order(self, value: float | None) -> float:
        """Sort key: the best value comes first, and None counts as the worst."""
        value = self.worst if value is None else value
        return -value if self.direction == "maximize" else value

    def alone(self, value: float) -> str:
        """Format a value without an interval: `61.20%`, `0.612`."""
        return f"{value:.2%}" if self.unit else f"{value:#.3g}"

    def number(self, value: float, half_width: float, decimals: int = 2) -> str:
        """Format a value and its half-width without the unit: `61.20 ± 0.80`.

        Args:
            value: a value of the metric, such as 0.612.
            half_width: half-width of its interval, in the same unit.
            decimals: decimals of per cent; numbers without a unit have significant digits instead.
        """
        if self.unit:
            return f"{100 * value:.{decimals}f} ± {100 * half_width:.{decimals}f}"
        return f"{value:#.3g} ± {half_width:#.2g}"

    def text(self, value: float, half_width: float, decimals: int = 2) -> str:
        """Format a value and its half-width with the unit: `61.20 ± 0.80 %`, `0.612 ± 0.080`.

        See `number` for the arguments.
        """
        return f"{self.number(value, half_width, decimals)} {self.unit}".rstrip()


ACCURACY = Metric("accuracy", "accuracy", "maximize", worst=0.0, unit="%")
"""The share of a task's query images that are classified correctly."""

MSE = Metric("mse", "MSE", "minimize", worst=float("inf"), unit="")
"""The mean squared error on a task's query points."""
