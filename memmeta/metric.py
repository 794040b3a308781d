"""What a run is judged by: the accuracy of classification, the squared error of regression."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A mean over evaluation tasks."""

    name: Literal["accuracy", "mse"]
    """In keys and column names."""
    title: str
    """For readers."""
    direction: Literal["maximize", "minimize"]
    """Which way is better, in Optuna's words."""
    worst: float
    """No run is worse."""
    unit: Literal["%", ""]
    """In which it is shown."""

    @property
    def key(self) -> str:
        """Its name in results on the validation tasks."""
        return f"val_{self.name}"

    @property
    def scale(self) -> int:
        """Factor from a value to its `unit`: 100 for per cent, else 1."""
        return 100 if self.unit else 1

    def order(self, value: float | None) -> float:
        """Sorts the best first, and no value with the worst."""
        value = self.worst if value is None else value
        return -value if self.direction == "maximize" else value

    def alone(self, value: float) -> str:
        """A value: `61.20%`, `0.612`."""
        return f"{value:.2%}" if self.unit else f"{value:#.3g}"

    def number(self, value: float, interval: float, decimals: int = 2) -> str:
        """A value and its interval, in the unit but without it; decimals are those of per cent."""
        if self.unit:
            return f"{100 * value:.{decimals}f} ± {100 * interval:.{decimals}f}"
        return f"{value:#.3g} ± {interval:#.2g}"

    def text(self, value: float, interval: float, decimals: int = 2) -> str:
        """A value and its interval: `61.20 ± 0.80 %`, `0.612 ± 0.080`."""
        return f"{self.number(value, interval, decimals)} {self.unit}".rstrip()


ACCURACY = Metric("accuracy", "accuracy", "maximize", worst=0.0, unit="%")
"""The share of a task's query images that are classified correctly."""

MSE = Metric("mse", "MSE", "minimize", worst=float("inf"), unit="")
"""The mean squared error on a task's query points."""
