"""What a search gains from each further trial, and whether it looked far enough."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import annotated_types
import numpy as np
from optuna.distributions import FloatDistribution, IntDistribution

from analysis.records.trials import RANKED, Sweep, Trial
from memmeta.config import LearnerConfig
from memmeta.metric import Metric
from sweeps.engine.display.table import short
from sweeps.engine.study.outcome import FINAL
from sweeps.engine.study.space import applies

LIKELY = (0.1, 0.9)
"""The quantiles between which the best of n trials lies in four searches of five."""

NEAR = 0.05
"""So much of a range, or of its logarithm, at either end counts as the end."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Step:
    """A sweep after so many of its trials."""

    trials: int
    """How many, from 1."""
    hours: float | None
    """What they took, in `Trial.device_hours`; None as soon as one did not say."""
    best: float | None
    """The best metric on the validation tasks so far; None before the first complete trial."""


@dataclass(frozen=True)
class Expected:
    """The best of so many trials of a random search."""

    trials: int
    """How many."""
    mean: float
    """Its expected metric."""
    unlucky: float
    """Its 10 % quantile: one search in ten finds nothing better."""
    lucky: float
    """Its 90 % quantile: nine searches in ten find nothing better."""


def best_so_far(sweep: Sweep) -> tuple[Step, ...]:
    """The course of explore and then search, a step for each trial with a result, by index.

    Only trials in `Sweep.complete` can be the best. Those that were stopped early, diverged or
    took too much memory cost a trial and their hours.
    """
    order = sweep.metric.order
    complete = {trial.run_id for trial in sweep.complete}
    steps: list[Step] = []
    hours: float | None = 0.0
    best: float | None = None
    for trial in _finished(sweep):
        took = trial.device_hours
        hours = None if hours is None or took is None else hours + took
        if trial.run_id in complete and (best is None or order(trial.value) < order(best)):
            best = trial.value
        steps.append(Step(len(steps) + 1, hours, best))
    return tuple(steps)


def explored(sweep: Sweep) -> tuple[float, ...]:
    """The metric of every trial of explore with a result, by index: what `expected_best` takes.

    One that is not in `Sweep.complete`, since it diverged or took too much memory, is as good as
    a learner that knows nothing (`DataConfig.uninformed`).
    """
    values = {trial.run_id: trial.value for trial in sweep.complete}
    finished = (trial for trial in _finished(sweep) if trial.stage == "explore")
    found = (values.get(trial.run_id, trial.config.data.uninformed) for trial in finished)
    return tuple(value for value in found if value is not None)


def expected_best(values: Sequence[float], metric: Metric) -> tuple[Expected, ...]:
    """The best of n of these N trials, drawn without replacement, for n = 1 to N.

    Let x_1, ..., x_N be sorted from the worst to the best. The best of n is x_i or worse with
    probability C(i, n) / C(N, n), which gives the quantiles, and is x_i with probability
    C(i-1, n-1) / C(N, n), which gives the mean. Of N independent draws the mean is an unbiased
    estimate of the expected best of n trials of a random search over the same space (Tang et al.,
    "Showing Your Work Doesn't Always Work", ACL 2020), as the estimate with replacement of Dodge
    et al. (EMNLP 2019) is not. Points of a space-filling design are more even than independent
    ones, which makes it a little too good. Values near n = N rest on few trials, and quantiles
    there are narrow since all subsets are nearly the same.

    Args:
        values: the metric of each trial, such as `explored`; not those of an optimiser, which are
            not drawn independently.
        metric: which way is better.

    Returns:
        N results, none where there are no values.
    """
    ordered = np.array(sorted(values, key=metric.order, reverse=True), dtype=np.float64)
    total, ranks = len(ordered), np.arange(1, len(ordered) + 1)
    # Both grow from n to n + 1 by factors that are at least 0, so that no digits cancel.
    at_most, exactly = ranks / max(total, 1), np.full(total, 1 / max(total, 1))
    curve: list[Expected] = []
    for n in range(1, total + 1):
        low, high = (ordered[np.argmax(at_most >= share - _ROUNDING)] for share in LIKELY)
        curve.append(Expected(n, float(exactly @ ordered), float(low), float(high)))
        left = np.maximum(ranks - n, 0) / max(total - n, 1)
        at_most, exactly = at_most * left, exactly * left * (n + 1) / n
    return tuple(curve)


def boundary_warnings(sweep: Sweep) -> list[str]:
    """Where the best trial sits at an end of the space that the learner could go beyond.

    A float is at an end within `NEAR` of its range, or of the range's logarithm where it is
    searched so; an integer if it equals the end. Choices have no ends.

    Returns:
        A sentence for each, none without complete trials.
    """
    if not sweep.complete:
        return []
    learner = sweep.complete[0].config.learner.model_dump()
    found = []
    for name, dimension in sweep.space.items():
        if not isinstance(dimension, FloatDistribution | IntDistribution):
            continue
        end = _end(learner[name], dimension) if applies(name, learner) else None
        if end is None or (end == "lower" and _is_least(name, dimension.low)):
            continue
        found.append(
            f"{name} {short(learner[name])} is at the {end} end of {short(dimension.low)} to "
            f"{short(dimension.high)}: a wider range may hold better ones"
        )
    return found


def _finished(sweep: Sweep) -> Iterable[Trial]:
    trials = (trial for trial in sweep.of(*RANKED) if trial.status in FINAL)
    return sorted(trials, key=lambda trial: (RANKED.index(trial.stage), trial.index))


def _end(value: float, dimension: FloatDistribution | IntDistribution) -> str | None:
    """The end that a value is at, if it is at one."""
    low, high = dimension.low, dimension.high
    if low == high:
        return None
    if isinstance(dimension, IntDistribution):
        return "lower" if value <= low else "upper" if value >= high else None
    scale = math.log if dimension.log else float
    share = (scale(value) - scale(low)) / (scale(high) - scale(low))
    return "lower" if share <= NEAR else "upper" if share >= 1 - NEAR else None


def _is_least(name: str, low: float) -> bool:
    """Whether the learner takes nothing below `low`."""
    bounds = LearnerConfig.model_fields[name].metadata
    return any(isinstance(b, annotated_types.Ge) and low <= b.ge for b in bounds)
