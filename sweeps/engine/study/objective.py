"""What a search optimises, and within which limits."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from memmeta.metric import Metric
from sweeps.engine.study.outcome import INFEASIBLE

T = TypeVar("T")


@dataclass(frozen=True)
class Objective:
    """The values of a trial in Optuna's sense."""

    metric: Metric
    """What runs on the study's data are judged by."""
    names: tuple[str, ...]
    """`Study.objective`: the metric's name, alone or followed by memory."""
    memory_limit: int | None = None
    """Bytes that the peak memory of a feasible trial stays within."""

    def directions(self) -> list[str]:
        """Which way each value is better, in Optuna's words."""
        return ["minimize" if name == "memory" else self.metric.direction for name in self.names]

    def values(self, result: Mapping[str, Any]) -> list[float]:
        """One value for each name; of a trial that did not get through, the worst there is."""
        return [self._value(name, result) for name in self.names]

    def constraints(self, result: Mapping[str, Any]) -> dict[str, float]:
        """What has to be 0 or less. The names are the same for every result.

        Without a measured peak the predicted one counts against the limit, and without either
        nothing does.
        """
        constraints = {name: float(name == result["status"]) for name in INFEASIBLE}
        if self.memory_limit is not None:
            peak = result.get("peak_memory_bytes") or result.get("predicted_memory_bytes")
            constraints["memory_limit"] = peak / self.memory_limit - 1 if peak else 0.0
        return constraints

    def feasible(self, result: Mapping[str, Any]) -> bool:
        """Whether every constraint holds."""
        return all(value <= 0 for value in self.constraints(result).values())

    def ranked(self, items: Iterable[T], result: Callable[[T], Mapping[str, Any]]) -> list[T]:
        """The items with the best metric first; of two objectives, those on the Pareto front.

        Args:
            items: have a result each.
            result: that of an item.
        """
        costs = [(self._costs(result(item)), item) for item in items]
        costs.sort(key=lambda pair: pair[0])
        if len(self.names) == 1:
            return [item for _, item in costs]
        front: list[tuple[tuple[float, ...], T]] = []
        # In order of the first cost, so the front is where the second is the least so far.
        for cost, item in costs:
            if not front or cost[1] < front[-1][0][1] or cost == front[-1][0]:
                front.append((cost, item))
        return [item for _, item in front]

    def _costs(self, result: Mapping[str, Any]) -> tuple[float, ...]:
        """The values, signed so that less is better."""
        pairs = zip(self.values(result), self.directions(), strict=True)
        return tuple(value if way == "minimize" else -value for value, way in pairs)

    def _value(self, name: str, result: Mapping[str, Any]) -> float:
        infeasible = result["status"] in INFEASIBLE
        if name == "memory":
            return float("inf") if infeasible else float(result["peak_memory_bytes"])
        return self.metric.worst if infeasible else float(result["metrics"][self.metric.key])
