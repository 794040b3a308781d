"""The objective and the constraints of a search."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from memmeta.metric import Metric
from sweeps.engine.study.outcome import INFEASIBLE
from sweeps.engine.study.result import TrialResult

T = TypeVar("T")

Direction = Literal["minimize", "maximize"]


def pareto_front(items: Iterable[T], costs: Callable[[T], tuple[float, ...]]) -> list[T]:
    """The items that no other item dominates, by increasing first cost.

    Args:
        items: the items, such as trials. Of items with equal costs, all are returned.
        costs: returns the two costs of an item; less is better.
    """
    front: list[tuple[tuple[float, ...], T]] = []
    pairs = [(costs(item), item) for item in items]
    # The first cost increases, so an item is on the front if its second cost is a new minimum.
    for cost, item in sorted(pairs, key=lambda pair: pair[0]):
        if not front or cost[1] < front[-1][0][1] or cost == front[-1][0]:
            front.append((cost, item))
    return [item for _, item in front]


@dataclass(frozen=True)
class Objective:
    """Converts results of trials to Optuna's values and constraints, and ranks them."""

    metric: Metric
    """The metric of the study's data set."""
    names: tuple[str, ...]
    """`Study.objective`: the metric's name, alone or followed by `memory`."""
    memory_limit: int | None = None
    """Maximum peak memory of a feasible trial, in bytes."""

    def directions(self) -> list[Direction]:
        """The direction of each objective value, in Optuna's terms."""
        return ["minimize" if name == "memory" else self.metric.direction for name in self.names]

    def values(self, result: TrialResult) -> list[float]:
        """One value for each objective; the worst possible ones if the trial was infeasible."""
        return [self._value(name, result) for name in self.names]

    def constraints(self, result: TrialResult) -> dict[str, float]:
        """Constraint values: 0 or less if satisfied. Every result has the same constraints.

        The memory limit is compared with the measured peak, or with the predicted one if nothing
        was measured. It is satisfied if neither is known.
        """
        constraints = {str(name): float(name == result["status"]) for name in INFEASIBLE}
        if self.memory_limit is not None:
            peak = result.get("peak_memory_bytes") or result.get("predicted_memory_bytes")
            constraints["memory_limit"] = peak / self.memory_limit - 1 if peak else 0.0
        return constraints

    def feasible(self, result: TrialResult) -> bool:
        """Whether every constraint is satisfied."""
        return all(value <= 0 for value in self.constraints(result).values())

    def ranked(self, items: Iterable[T], result: Callable[[T], TrialResult]) -> list[T]:
        """Sort items, best metric first. With two objectives, return only the Pareto front.

        Args:
            items: the items to rank, such as trials.
            result: returns the result of an item.
        """

        def costs(item: T) -> tuple[float, ...]:
            return self._costs(result(item))

        return sorted(items, key=costs) if len(self.names) == 1 else pareto_front(items, costs)

    def _costs(self, result: TrialResult) -> tuple[float, ...]:
        """The objective values, with signs such that less is better."""
        pairs = zip(self.values(result), self.directions(), strict=True)
        return tuple(value if way == "minimize" else -value for value, way in pairs)

    def _value(self, name: str, result: TrialResult) -> float:
        if result["status"] in INFEASIBLE:
            return math.inf if name == "memory" else self.metric.worst
        if name == "memory":
            peak = result["peak_memory_bytes"]
            return math.inf if peak is None else float(peak)
        return float(result["metrics"][self.metric.key])
