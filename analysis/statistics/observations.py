"""Trials of stage explore as observations of a response: one for each config."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from analysis.records.trials import Trial
from analysis.statistics.encoding import Space, params
from analysis.statistics.responses import Response


@dataclass(frozen=True)
class Observation:
    """One config, and the response that its trials gave."""

    params: Mapping[str, Any]
    """The dimensions that apply to the config, and their values."""
    value: float
    """Mean over the trials, in the response's unit; the geometric mean where `Response.log`."""


def observations(
    trials: Iterable[Trial], space: Space, response: Response
) -> tuple[Observation, ...]:
    """One observation for each config that has the response, in the order of the design.

    A small space makes the design repeat configs. Since all trials of explore share one training
    seed, a repeat gives the same result again: it adds no evidence.

    Args:
        trials: those of a sweep. Only stage explore is used.
        space: the dimensions that tell configs apart.
        response: the number to observe.
    """
    explored = (trial for trial in trials if trial.stage == "explore")
    found: dict[tuple[tuple[str, Any], ...], list[float]] = {}
    for trial in sorted(explored, key=lambda trial: trial.index):
        value = response.of(trial)
        if value is not None:
            found.setdefault(tuple(params(trial, space).items()), []).append(value)
    return tuple(Observation(dict(own), _mean(of, response)) for own, of in found.items())


def _mean(values: list[float], response: Response) -> float:
    # The mean of equal numbers is not always that number.
    if len(set(values)) == 1:
        return values[0]
    if response.log:
        return math.exp(statistics.fmean(map(math.log, values)))
    return statistics.fmean(values)
