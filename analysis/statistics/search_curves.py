"""Progress of a search, a random-search baseline, and optima at the boundary of the space."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import annotated_types
import numpy as np
from optuna.distributions import FloatDistribution, IntDistribution

from analysis.records.trials import RANKED, Sweep, Trial
from memmeta.config import LearnerConfig
from memmeta.metric import Metric
from memmeta.system.units import short
from sweeps.engine.study.outcome import FINAL
from sweeps.engine.study.space import applies

QUANTILES = (0.1, 0.9)
"""Quantiles of the best of n trials: four of five searches lie between them."""

BOUNDARY_SHARE = 0.05
"""Share of a range, or of its logarithm, at either end that counts as the boundary."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Step:
    """State of a sweep after a number of trials."""

    trials: int
    """Number of finished trials, from 1."""
    hours: float | None
    """Sum of their `Trial.device_hours`; None from the first trial without a time on."""
    best: float | None
    """Best metric on the validation tasks so far; None before the first complete trial."""


@dataclass(frozen=True)
class Expected:
    """Distribution of the best metric after a number of trials of a random search."""

    trials: int
    """Number of trials."""
    mean: float
    """Expected best metric."""
    unlucky: float
    """The 10 % quantile: one search in ten finds nothing better."""
    lucky: float
    """The 90 % quantile: nine searches in ten find nothing better."""


def best_so_far(sweep: Sweep) -> tuple[Step, ...]:
    """Progress over explore and then search: one step per finished trial, by index.

    Only trials in `Sweep.ranking` can be the best. Trials that were pruned, diverged or exceeded
    the memory limit count as trials and hours without a result.
    """
    order = sweep.metric.order
    ranked = {trial.run_id for trial in sweep.ranking}
    steps: list[Step] = []
    hours: float | None = 0.0
    best: float | None = None
    for trial in _finished(sweep):
        own_hours = trial.device_hours
        hours = None if hours is None or own_hours is None else hours + own_hours
        if trial.run_id in ranked and (best is None or order(trial.value) < order(best)):
            best = trial.value
        steps.append(Step(len(steps) + 1, hours, best))
    return tuple(steps)


def explore_values(sweep: Sweep) -> tuple[float, ...]:
    """The metric of every finished trial of explore, by index, as input of `expected_best`.

    A trial outside `Sweep.ranking`, which diverged or exceeded the memory limit, counts as a
    learner at chance level.
    """
    values = {trial.run_id: trial.value for trial in sweep.ranking}
    finished = (trial for trial in _finished(sweep) if trial.stage == "explore")
    known = (values.get(trial.run_id, trial.config.data.chance_level) for trial in finished)
    return tuple(value for value in known if value is not None)


def expected_best(values: Sequence[float], metric: Metric) -> tuple[Expected, ...]:
    """The best of n of these N trials, drawn without replacement, for n = 1 to N.

    Let x_1, ..., x_N be sorted from worst to best. The best of n is x_i or worse with probability
    C(i, n) / C(N, n), which gives the quantiles, and equals x_i with probability
    C(i-1, n-1) / C(N, n), which gives the mean. For N independent draws the mean is an unbiased
    estimate of the expected best of n trials of random search over the same space (Tang et al.,
    "Showing Your Work Doesn't Always Work", ACL 2020); the estimate with replacement of Dodge et
    al. (EMNLP 2019) is biased. Points of a space-filling design are more evenly spread than
    independent ones, which makes the estimate slightly too good. Near n = N the result depends on
    few trials, and the quantiles are too narrow since all subsets are nearly the same.

    Args:
        values: the metric of each trial, from `explore_values`. Trials that an optimiser proposed
            are not independent and must not be used.
        metric: the metric, for its direction.

    Returns:
        N results, or none without values.
    """
    ordered = np.array(sorted(values, key=metric.order, reverse=True), dtype=np.float64)
    total, ranks = len(ordered), np.arange(1, len(ordered) + 1)
    # Computed recursively in n by non-negative factors, which avoids cancellation.
    at_most, exactly = ranks / max(total, 1), np.full(total, 1 / max(total, 1))
    curve: list[Expected] = []
    for n in range(1, total + 1):
        low, high = (ordered[np.argmax(at_most >= share - _ROUNDING)] for share in QUANTILES)
        curve.append(Expected(n, float(exactly @ ordered), float(low), float(high)))
        left = np.maximum(ranks - n, 0) / max(total - n, 1)
        at_most, exactly = at_most * left, exactly * left * (n + 1) / n
    return tuple(curve)


def boundary_warnings(sweep: Sweep) -> list[str]:
    """Dimensions in which the best trial lies at a boundary that could be widened.

    A float is at a boundary if it is within `BOUNDARY_SHARE` of the range, or of its logarithm on
    a logarithmic scale; an integer if it equals the bound. Choices have no boundary.

    Returns:
        One sentence per dimension; empty without complete trials.
    """
    if not sweep.ranking:
        return []
    learner = sweep.ranking[0].config.learner.model_dump()
    warnings = []
    for name, dimension in sweep.space.items():
        if not isinstance(dimension, FloatDistribution | IntDistribution):
            continue
        end = _end(learner[name], dimension) if applies(name, learner) else None
        if end is None or (end == "lower" and _is_least(name, dimension.low)):
            continue
        warnings.append(
            f"{name} {short(learner[name])} is at the {end} end of {short(dimension.low)} to "
            f"{short(dimension.high)}: a wider range may contain better values"
        )
    return warnings


def _finished(sweep: Sweep) -> Iterable[Trial]:
    trials = (trial for trial in sweep.trials_in(*RANKED) if trial.status in FINAL)
    return sorted(trials, key=lambda trial: (RANKED.index(trial.stage), trial.index))


def _end(value: float, dimension: FloatDistribution | IntDistribution) -> str | None:
    """The end of the range at which `value` lies; None if it is inside."""
    low, high = dimension.low, dimension.high
    if low == high:
        return None
    if isinstance(dimension, IntDistribution):
        return "lower" if value <= low else "upper" if value >= high else None
    scale = math.log if dimension.log else float
    share = (scale(value) - scale(low)) / (scale(high) - scale(low))
    return "lower" if share <= BOUNDARY_SHARE else "upper" if share >= 1 - BOUNDARY_SHARE else None


def _is_least(name: str, low: float) -> bool:
    """Whether the learner accepts no value below `low`."""
    bounds = LearnerConfig.model_fields[name].metadata
    return any(isinstance(b, annotated_types.Ge) and low <= b.ge for b in bounds)
