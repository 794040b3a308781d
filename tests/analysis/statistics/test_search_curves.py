"""Best so far, compared with a plain loop; expected best, compared with all subsets."""

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.records.trials import Sweep
from analysis.statistics.search_curves import (
    Expected,
    Step,
    best_so_far,
    boundary_warnings,
    expected_best,
    explore_values,
)
from memmeta.config import DataConfig
from memmeta.metric import ACCURACY, MSE, Metric
from tests.analysis.made_up import MIB, sweep, trial

WAVES = DataConfig(name="sinusoid", ways=1)
HOUR = 3600.0

metrics = st.sampled_from([ACCURACY, MSE])
few = st.lists(st.integers(0, 12), min_size=1, max_size=8)


def all_subsets(values: list[int], n: int, metric: Metric) -> Expected:
    """`expected_best` by definition, in fractions: all subsets of size n are equally likely."""
    best = [min(subset, key=metric.order) for subset in itertools.combinations(values, n)]
    best.sort(key=metric.order, reverse=True)
    quantiles = []
    for share in (Fraction(1, 10), Fraction(9, 10)):
        at_least = math.ceil(share * len(best))
        quantiles.append(float(best[at_least - 1]))
    return Expected(n, float(Fraction(sum(best), len(best))), *quantiles)


@given(values=few, metric=metrics)
def test_the_expected_best_agrees_with_all_subsets(values: list[int], metric: Metric) -> None:
    curve = expected_best([float(value) for value in values], metric)
    assert [point.trials for point in curve] == list(range(1, len(values) + 1))
    for point in curve:
        expected = all_subsets(values, point.trials, metric)
        assert point.mean == pytest.approx(expected.mean, abs=1e-12)
        assert (point.unlucky, point.lucky) == (expected.unlucky, expected.lucky)


@pytest.mark.parametrize(("metric", "quantiles"), [(ACCURACY, (0, 8)), (MSE, (9, 1))])
def test_an_exactly_reached_quantile_is_included(
    metric: Metric, quantiles: tuple[int, int]
) -> None:
    one = expected_best(range(10), metric)[0]
    assert (one.unlucky, one.lucky) == quantiles


@pytest.mark.parametrize("metric", [ACCURACY, MSE])
def test_the_estimate_is_unbiased(metric: Metric) -> None:
    # The expected best of n uniform numbers is n / (n + 1), or 1 / (n + 1) if lower is better.
    rng = np.random.default_rng(0)
    means = np.array(
        [[p.mean for p in expected_best(list(rng.uniform(size=12)), metric)] for _ in range(2000)]
    )
    n = np.arange(1, 13)
    expected = n / (n + 1) if metric is ACCURACY else 1 / (n + 1)
    errors = means.std(axis=0) / math.sqrt(len(means))
    assert np.all(np.abs(means.mean(axis=0) - expected) < 4 * errors)
    assert errors.max() < 0.003


def test_thousands_of_trials_are_exact() -> None:
    # The expected largest of n of the numbers 1 to N is n (N + 1) / (n + 1).
    total = 4000
    curve = expected_best([float(value) for value in range(1, total + 1)], ACCURACY)
    n = np.arange(1, total + 1)
    means = np.array([point.mean for point in curve])
    np.testing.assert_allclose(means, n * (total + 1) / (n + 1), rtol=1e-10)
    for count in (1, 7, 1000, 3999, 4000):
        point = curve[count - 1]
        for value, share in ((point.unlucky, Fraction(1, 10)), (point.lucky, Fraction(9, 10))):
            within = Fraction(math.comb(int(value), count), math.comb(total, count))
            below = Fraction(math.comb(int(value) - 1, count), math.comb(total, count))
            assert below < share <= within


def test_no_trials_have_no_expected_best() -> None:
    assert expected_best([], ACCURACY) == ()


def mixed(data: DataConfig, *values: float, **search: Any) -> Sweep:
    """Two complete trials of explore among failures, then three of search."""
    learner = {"backbone": "mlp"} if data is WAVES else {}
    first, second, third, fourth = values
    common: dict[str, Any] = {"data": data, "learner": learner, "seconds": HOUR}
    lost = common | {"peak_memory_bytes": None}
    return sweep(
        [
            trial("search", 0, fourth, **common | {"peak_memory_bytes": 900 * MIB}),
            trial("search", 1, third, status="pruned", **common),
            trial("search", 2, second, **common | {"threads": 2}),
            trial("search", 3, None, status="running", **common),
            trial("explore", 2, None, status="out_of_memory", **lost | {"seconds": 0.0}),
            trial("explore", 1, first, **common),
            trial("explore", 0, None, status="diverged", **common | {"seconds": HOUR / 2}),
            trial("explore", 3, None, status="failed", **common),
            trial("explore", 4, third, **common | {"peak_memory_bytes": 800 * MIB}),
            trial("confirm", 0, fourth, **common),
        ],
        **search,
    )


def test_only_complete_trials_improve_the_best() -> None:
    expected = [(1, 0.5), (2, 1.5), (3, 1.5), (4, 2.5), (5, 3.5), (6, 4.5), (7, 6.5)]
    best = best_so_far(mixed(DataConfig(), 0.4, 0.5, 0.6, 0.7))
    assert [(step.trials, step.hours) for step in best] == expected
    assert [step.best for step in best] == [None, 0.4, 0.4, 0.6, 0.7, 0.7, 0.7]
    best = best_so_far(mixed(WAVES, 0.4, 0.5, 0.6, 0.7))
    assert [step.best for step in best] == [None, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]


def test_a_trial_over_the_memory_limit_is_not_the_best() -> None:
    limited = mixed(DataConfig(), 0.4, 0.5, 0.6, 0.7, memory_limit=500 * MIB)
    best = best_so_far(limited)
    assert [step.best for step in best] == [None, 0.4, 0.4, 0.4, 0.4, 0.4, 0.5]
    assert explore_values(limited) == (0.2, 0.4, 0.2, 0.2)


def test_hours_are_unknown_after_a_trial_without_a_time() -> None:
    trials = [
        trial("explore", 0, 0.5, seconds=HOUR),
        trial("explore", 1, 0.0, seconds=None),
        trial("explore", 2, 0.6, seconds=HOUR),
    ]
    assert best_so_far(sweep(trials)) == (Step(1, 1.0, 0.5), Step(2, None, 0.5), Step(3, None, 0.6))


def test_the_worst_metric_is_better_than_none() -> None:
    assert best_so_far(sweep([trial("explore", 0, 0.0)]))[0].best == 0.0


def test_a_failed_explore_trial_counts_as_chance_level() -> None:
    assert explore_values(mixed(DataConfig(), 0.4, 0.5, 0.6, 0.7)) == (0.2, 0.4, 0.2, 0.6)
    nothing = WAVES.chance_level
    assert explore_values(mixed(WAVES, 0.4, 0.5, 0.6, 0.7)) == (nothing, 0.4, nothing, 0.6)


LOG = {"low": 0.01, "high": 100.0, "log": True}
STRAIGHT = {"low": 0.01, "high": 100.0}


@pytest.mark.parametrize(
    ("name", "space", "value", "end"),
    [
        # One twentieth of four decades is a factor of 10^0.2 = 1.58.
        ("inner_lr", LOG, 0.0157, "lower"),
        ("inner_lr", LOG, 0.0159, None),
        ("inner_lr", LOG, 62.0, None),
        ("inner_lr", LOG, 64.0, "upper"),
        ("inner_lr", STRAIGHT, 4.9, "lower"),
        ("inner_lr", STRAIGHT, 5.1, None),
        ("inner_lr", STRAIGHT, 95.5, "upper"),
        ("inner_lr", {"low": 1.0, "high": 1.0}, 1.0, None),
        ("ridge", {"low": 0.0, "high": 1.0}, 0.0, None),
        ("ridge", {"low": 0.0, "high": 1.0}, 1.0, "upper"),
        ("ridge", {"low": 0.1, "high": 1.0}, 0.1, "lower"),
        ("inner_steps", {"low": 1, "high": 40, "log": True}, 1, "lower"),
        ("inner_steps", {"low": 1, "high": 40}, 2, None),
        ("inner_steps", {"low": 0, "high": 40}, 0, None),
        ("inner_steps", {"low": 1, "high": 41, "step": 4}, 41, "upper"),
        ("task_batch", {"low": 1, "high": 8}, 1, None),
        ("cg_steps", [1, 5, 20], 20, None),
    ],
)
def test_a_boundary_that_can_be_widened_is_reported(
    name: str, space: Any, value: float, end: str | None
) -> None:
    best = trial("explore", 1, 0.9, learner={name: value})
    other = trial("explore", 0, 0.1, learner={name: 1})
    found = boundary_warnings(sweep([other, best], {name: space}))
    assert len(found) == (end is not None)
    assert all(f"{name} {value:g} is at the {end} end of" in sentence for sentence in found)


def test_a_warning_has_the_value_and_the_range() -> None:
    best = trial("explore", 0, 0.9, learner={"inner_lr": 0.031234})
    space = {"inner_lr": {"low": 0.03, "high": 3.0, "log": True}}
    assert boundary_warnings(sweep([best], space)) == [
        "inner_lr 0.0312 is at the lower end of 0.03 to 3: a wider range may contain better values"
    ]


def test_a_dimension_that_does_not_apply_has_no_warning() -> None:
    space = {"cg_steps": {"low": 1, "high": 20}}
    learner = {"algorithm": "anil", "cg_steps": 20}
    assert boundary_warnings(sweep([trial("explore", 0, 0.9, learner=learner)], space)) == []
    assert boundary_warnings(sweep([trial("explore", 0, 0.9)], space)) != []


def test_there_are_no_warnings_without_complete_trials() -> None:
    lost = trial("explore", 0, None, status="diverged")
    assert boundary_warnings(sweep([lost], {"cg_steps": {"low": 1, "high": 20}})) == []


@settings(max_examples=25)
@given(values=few, metric=metrics)
def test_the_expected_best_never_gets_worse(values: list[int], metric: Metric) -> None:
    curve = expected_best(values, metric)
    for before, after in itertools.pairwise(curve):
        assert metric.order(after.mean) <= metric.order(before.mean) + 1e-12
        assert metric.order(after.unlucky) <= metric.order(before.unlucky)
        assert metric.order(after.lucky) <= metric.order(before.lucky)
