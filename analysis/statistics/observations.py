"""Observations of a response: the trials of stage explore, merged by config."""

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
    """The response of one config."""

    params: Mapping[str, Any]
    """The config's values in the dimensions that apply to it."""
    value: float
    """Mean over its trials in the response's unit; the geometric mean if `Response.log`."""


def observations(
    trials: Iterable[Trial], space: Space, response: Response
) -> tuple[Observation, ...]:
    """One observation per config that has the response, in the order of the design.

    In a small space the design repeats configs. Since all trials of explore share one training
    seed, a repeat reproduces the same result and adds no evidence.

    Args:
        trials: trials of a sweep; only those of stage explore are used.
        space: the dimensions that distinguish configs.
        response: the response to observe.
    """
    explored = (trial for trial in trials if trial.stage == "explore")
    values: dict[tuple[tuple[str, Any], ...], list[float]] = {}
    for trial in sorted(explored, key=lambda trial: trial.index):
        value = response.value_of(trial)
        if value is not None:
            values.setdefault(tuple(params(trial, space).items()), []).append(value)
    return tuple(Observation(dict(config), _mean(own, response)) for config, own in values.items())


def _mean(values: list[float], response: Response) -> float:
    # Rounding can make the mean of equal numbers differ from them.
    if len(set(values)) == 1:
        return values[0]
    if response.log:
        return math.exp(statistics.fmean(map(math.log, values)))
    return statistics.fmean(values)
