"""Metrics of runs: accuracy for classification, squared error for regression."""

from dataclasses import dataclass
from typing import Literal

from memmeta.intervals import with_half_width


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
        """Format the result of one run, to compare it with another: `61.20%`, `0.612`."""
        return f"{value:.2%}" if self.unit else f"{value:#.3g}"

    def text(self, value: float, half_width: float) -> str:
        """Format the result of one run and its half-width: `61.20 ± 0.80 %`, `0.612 ± 0.080`."""
        if not self.unit:
            return with_half_width(value, half_width)
        return f"{100 * value:.2f} ± {100 * half_width:.2f} %"

    def rounded(self, value: float, half_width: float | None = None, unit: bool = True) -> str:
        """Format a result for tables and reports, to the digits that its half-width supports.

        The half-width has two significant digits, in per cent only one below 1. A value without
        a half-width has one decimal in per cent, and three significant digits otherwise.

        Args:
            value: a value of the metric, such as 0.612.
            half_width: half-width of its interval, in the same unit.
            unit: whether to append the unit.

        Examples:
            >>> ACCURACY.rounded(0.6772, 0.0123)
            '67.7 ± 1.2 %'
            >>> ACCURACY.rounded(0.6772, 0.0057, unit=False)
            '67.7 ± 0.6'
            >>> MSE.rounded(0.4, 0.0204)
            '0.400 ± 0.020'
        """
        value = self.scale * value
        if half_width is None:
            number = f"{value:.1f}" if self.unit else f"{value:#.3g}"
        else:
            half_width = self.scale * half_width
            number = with_half_width(value, half_width, 1 if self.unit and half_width < 1 else 2)
        return f"{number} {self.unit}".rstrip() if unit else number


ACCURACY = Metric("accuracy", "accuracy", "maximize", worst=0.0, unit="%")
"""The share of a task's query images that are classified correctly."""

MSE = Metric("mse", "MSE", "minimize", worst=float("inf"), unit="")
"""The mean squared error on a task's query points."""
