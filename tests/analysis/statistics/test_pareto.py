"""Front, hypervolume and best within a budget, compared with brute force."""

import dataclasses
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.records.trials import Trial
from analysis.statistics.pareto import (
    REFERENCE_MEMORY,
    Reference,
    best_within,
    budgets,
    front,
    hypervolume,
    reference,
)
from memmeta.config import DataConfig
from tests.analysis.made_up import DATA, trial

WAVES = DataConfig(name="sinusoid", ways=1)
GRID = 16
"""Side of the reference's rectangle in units."""
ROOM = Reference(0.0, GRID)
ROOM_OF_WAVES = Reference(float(GRID), GRID)

Points = Sequence[tuple[int, int]]
"""Peak memory in bytes, and the metric in units; a higher metric is better."""

many = st.lists(st.tuples(st.integers(1, GRID + 4), st.integers(-2, GRID)), max_size=12)


def pictures(points: Points) -> list[Trial]:
    """Classification trials; one unit is a sixteenth of accuracy."""
    return [
        trial("explore", index, units / GRID, peak_memory_bytes=memory)
        for index, (memory, units) in enumerate(points)
    ]


def waves(points: Points) -> list[Trial]:
    """Regression trials that are as good as `pictures` of the same points."""
    return [
        trial(
            "explore",
            index,
            float(GRID - units),
            data=WAVES,
            learner={"backbone": "mlp"},
            peak_memory_bytes=memory,
        )
        for index, (memory, units) in enumerate(points)
    ]


def indices(trials: Sequence[Trial]) -> list[int]:
    return [trial.index for trial in trials]


def undominated(points: Points) -> list[int]:
    """Indices of the front, by comparing all pairs of points."""

    def beaten(memory: int, units: int) -> bool:
        return any(
            other <= memory and value >= units and (other, value) != (memory, units)
            for other, value in points
        )

    first = [index for index, point in enumerate(points) if point not in points[:index]]
    return sorted((i for i in first if not beaten(*points[i])), key=lambda i: points[i])


def dominated_cells(points: Points) -> float:
    """Share of the unit squares in the reference's rectangle that a point dominates."""
    cells = [(memory, units) for memory in range(GRID) for units in range(GRID)]
    covered = sum(
        any(other <= memory and value > units for other, value in points) for memory, units in cells
    )
    return covered / len(cells)


@given(points=many)
def test_the_front_consists_of_non_dominated_trials(points: Points) -> None:
    expected = undominated(points)
    assert indices(front(pictures(points))) == expected
    assert indices(front(waves(points))) == expected


@given(points=many)
def test_the_hypervolume_is_the_dominated_share(points: Points) -> None:
    expected = pytest.approx(dominated_cells(points), abs=1e-12)
    assert hypervolume(pictures(points), ROOM) == expected
    assert hypervolume(waves(points), ROOM_OF_WAVES) == expected


@given(points=many, more=many)
def test_more_trials_never_lower_the_hypervolume(points: Points, more: Points) -> None:
    both = pictures([*points, *more])
    assert hypervolume(both, ROOM) >= hypervolume(pictures(points), ROOM) - 1e-12


def test_the_hypervolume_ranges_from_zero_to_one() -> None:
    assert hypervolume(pictures([(0, GRID)]), ROOM) == 1
    assert hypervolume(waves([(0, GRID)]), ROOM_OF_WAVES) == 1
    assert hypervolume(pictures([(GRID, 0)]), ROOM) == 0
    assert hypervolume([], ROOM) == 0


def test_the_default_reference_is_chance_level_and_one_gibibyte() -> None:
    assert reference(DATA) == Reference(1 / 5, 2**30)
    assert reference(WAVES, 7) == Reference(WAVES.chance_level, 7)
    half = trial("explore", 0, 0.6, peak_memory_bytes=REFERENCE_MEMORY // 2)
    assert hypervolume([half], reference(DATA)) == pytest.approx(1 / 4)


@given(points=many, limits=st.lists(st.integers(0, GRID + 6), max_size=5))
def test_the_best_within_a_budget_is_the_best_that_fits(points: Points, limits: list[int]) -> None:
    for trials in (pictures(points), waves(points)):
        for limit, best in zip(limits, best_within(trials, limits), strict=True):
            fit = [(-units, memory, i) for i, (memory, units) in enumerate(points)]
            fit = [one for one in fit if one[1] <= limit]
            assert (best.index if best else None) == (min(fit)[2] if fit else None)


@given(points=st.lists(st.tuples(st.integers(1, 2**40), st.just(1)), min_size=1, max_size=8))
def test_budgets_double_until_all_trials_fit(
    points: Points,
) -> None:
    found = budgets(pictures(points))
    memories = [memory for memory, _ in points]
    assert found[0] >= min(memories) > found[0] / 2
    assert found[-1] >= max(memories) > found[-1] / 2
    assert found == tuple(found[0] * 2**place for place in range(len(found)))
    assert found[0].bit_count() == 1


def test_there_are_no_budgets_without_trials() -> None:
    assert budgets([]) == ()


def test_trials_without_memory_or_metric_are_ignored() -> None:
    known = trial("explore", 0, 0.5)
    unknown = dataclasses.replace(known, index=1, peak_memory_bytes=None)
    unfinished = dataclasses.replace(known, index=2, value=None)
    assert front([unknown, unfinished, known]) == (known,)
    assert budgets([unknown, unfinished]) == ()
