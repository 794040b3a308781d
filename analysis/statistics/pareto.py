"""Quality against peak memory: the Pareto front, its hypervolume, the best within a budget."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from analysis.records.trials import Trial
from memmeta.config import DataConfig
from memmeta.metric import Metric

MEMORY = 2**30
"""The memory of a reference unless another is given, in bytes."""


@dataclass(frozen=True)
class Reference:
    """The worse corner of the rectangle that a hypervolume is a share of.

    It is fixed beforehand: hypervolumes compare only with one and the same reference.
    """

    value: float
    """Of the metric; worse than the best possible one."""
    memory_bytes: int
    """Of peak memory, in bytes above 0."""


def reference(data: DataConfig, memory_bytes: int = MEMORY) -> Reference:
    """A learner that knows nothing and holds `memory_bytes`: no trial has a say in it."""
    return Reference(data.uninformed, memory_bytes)


def front(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """The Pareto front of the metric on the validation tasks and peak memory.

    Args:
        trials: complete ones, such as `Sweep.complete`. Those without memory are left out.

    Returns:
        Those that no other is at least as good as in both and better in one, by increasing peak
        memory. Of several that are equal in both the first one.
    """
    found: list[Trial] = []
    best = float("inf")
    for _, loss, trial in sorted(_points(trials), key=lambda point: point[:2]):
        if loss < best:
            found.append(trial)
            best = loss
    return tuple(found)


def hypervolume(trials: Iterable[Trial], reference: Reference) -> float:
    """The share of what is better than `reference` that the trials dominate, from 0 to 1.

    The rectangle reaches from the reference to no memory and the best possible metric: accuracy 1
    or MSE 0. A larger share is better (Zitzler and Thiele, PPSN 1998). Trials that are not better
    than the reference in both count nothing.

    Args:
        trials: complete ones, such as `Sweep.complete`.
        reference: see there.
    """
    area, previous = 0.0, 0.0
    points = [_shares(trial, reference) for trial in front(trials)]
    for memory, quality in points:
        if memory < 1 and quality > previous:
            area += (1 - memory) * (quality - previous)
            previous = quality
    return area


def budgets(trials: Iterable[Trial]) -> tuple[int, ...]:
    """Budgets of peak memory in bytes, each twice the one before.

    They are powers of two, from the first that holds a trial to the first that holds all. There
    are none where there are no trials.
    """
    exponents = [(memory - 1).bit_length() for memory, _, _ in _points(trials)]
    if not exponents:
        return ()
    return tuple(2**exponent for exponent in range(min(exponents), max(exponents) + 1))


def best_within(trials: Iterable[Trial], budgets: Sequence[int]) -> tuple[Trial | None, ...]:
    """The best trial whose peak memory is within each budget; None where there is none.

    Of trials with the same metric it is the one with the least memory.

    Args:
        trials: complete ones, such as `Sweep.complete`.
        budgets: bytes, in any order.
    """
    best = front(trials)
    memories = [trial.peak_memory_bytes or 0 for trial in best]
    places = (bisect_right(memories, budget) for budget in budgets)
    return tuple(best[place - 1] if place else None for place in places)


def _points(trials: Iterable[Trial]) -> Iterator[tuple[int, float, Trial]]:
    """Peak memory and the metric's `order`, both the lower the better, of those with both."""
    for trial in trials:
        if trial.peak_memory_bytes is not None and trial.value is not None:
            yield trial.peak_memory_bytes, _metric(trial).order(trial.value), trial


def _shares(trial: Trial, reference: Reference) -> tuple[float, float]:
    """Memory, and the way from the reference to the best possible metric, each as a share."""
    assert trial.peak_memory_bytes is not None
    assert trial.value is not None
    ideal = 1.0 if _metric(trial).direction == "maximize" else 0.0
    quality = (trial.value - reference.value) / (ideal - reference.value)
    return trial.peak_memory_bytes / reference.memory_bytes, quality


def _metric(trial: Trial) -> Metric:
    return trial.config.data.metric
