"""Metric against peak memory: Pareto front, hypervolume, and best trial within a budget."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from analysis.records.trials import Trial
from memmeta.config import DataConfig
from memmeta.metric import Metric
from sweeps.engine.study.objective import pareto_front

REFERENCE_MEMORY = 2**30
"""Default memory of a reference, in bytes."""


@dataclass(frozen=True)
class Reference:
    """The reference point of a hypervolume.

    It must be fixed in advance: only hypervolumes with the same reference are comparable.
    """

    value: float
    """Value of the metric, worse than the best possible one."""
    memory_bytes: int
    """Peak memory in bytes, above 0."""


def reference(data: DataConfig, memory_bytes: int = REFERENCE_MEMORY) -> Reference:
    """A learner at chance level that takes `memory_bytes`; independent of the trials."""
    return Reference(data.chance_level, memory_bytes)


def front(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """The Pareto front of the metric on the validation tasks and peak memory.

    Args:
        trials: complete trials, such as `Sweep.ranking`. Trials without memory are ignored.

    Returns:
        The trials that no other trial dominates, by increasing peak memory. If trials are equal
        in both objectives, only the first is included.
    """
    first_of_equals: dict[tuple[int, float], Trial] = {}
    for memory, loss, trial in _points(trials):
        first_of_equals.setdefault((memory, loss), trial)
    points = pareto_front(first_of_equals.items(), lambda item: item[0])
    return tuple(trial for _, trial in points)


def hypervolume(trials: Iterable[Trial], reference: Reference) -> float:
    """Share of the region better than `reference` that the trials dominate, from 0 to 1.

    The region extends from the reference to zero memory and the best possible metric: accuracy 1
    or MSE 0. A larger share is better (Zitzler and Thiele, PPSN 1998). Trials that are not better
    than the reference in both objectives do not contribute.

    Args:
        trials: complete trials, such as `Sweep.ranking`.
        reference: the reference point.
    """
    area, previous = 0.0, 0.0
    points = [_shares(trial, reference) for trial in front(trials)]
    for memory, quality in points:
        if memory < 1 and quality > previous:
            area += (1 - memory) * (quality - previous)
            previous = quality
    return area


def budgets(trials: Iterable[Trial]) -> tuple[int, ...]:
    """Budgets of peak memory in bytes, each twice the previous one.

    The powers of two from the smallest that admits one of the trials to the smallest that admits
    all of them. Empty without trials.
    """
    exponents = [(memory - 1).bit_length() for memory, _, _ in _points(trials)]
    if not exponents:
        return ()
    return tuple(2**exponent for exponent in range(min(exponents), max(exponents) + 1))


def best_within(trials: Iterable[Trial], budgets: Sequence[int]) -> tuple[Trial | None, ...]:
    """The best trial whose peak memory is within each budget, or None.

    Ties in the metric are broken by memory.

    Args:
        trials: complete trials, such as `Sweep.ranking`.
        budgets: budgets in bytes, in any order.
    """
    candidates = front(trials)
    memories = [trial.peak_memory_bytes or 0 for trial in candidates]
    counts = (bisect_right(memories, budget) for budget in budgets)
    return tuple(candidates[count - 1] if count else None for count in counts)


def _points(trials: Iterable[Trial]) -> Iterator[tuple[int, float, Trial]]:
    """Peak memory and `Metric.order` of the trials that have both; lower is better."""
    for trial in trials:
        if trial.peak_memory_bytes is not None and trial.value is not None:
            yield trial.peak_memory_bytes, _metric(trial).order(trial.value), trial


def _shares(trial: Trial, reference: Reference) -> tuple[float, float]:
    """Memory and metric of a trial, relative to the reference.

    Returns:
        Memory as a share of the reference's, and the share of the distance from the reference's
        metric to the best possible one.
    """
    assert trial.peak_memory_bytes is not None
    assert trial.value is not None
    ideal = 1.0 if _metric(trial).direction == "maximize" else 0.0
    quality = (trial.value - reference.value) / (ideal - reference.value)
    return trial.peak_memory_bytes / reference.memory_bytes, quality


def _metric(trial: Trial) -> Metric:
    return trial.config.data.metric
