import math
import statistics
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.records.trials import OtherScore, Trial
from analysis.statistics.confirmed import (
    confirmed_configs,
    confirmed_results,
    mean_selection_bias,
    predict_fresh_seed,
    seed_deviation,
)
from memmeta.config import DataConfig
from memmeta.exported import Confirmed
from tests.analysis.made_up import sweep, trial

SINUSOID = DataConfig(name="sinusoid", ways=1)


def fresh(
    index: int, value: float, test: float, *, seed: int, steps: int, **facts: object
) -> Trial:
    learner = {"inner_steps": steps}
    defaults: dict[str, Any] = {"test_value": test, "test_interval": 0.01}
    return trial("confirm", index, value, seed=seed, learner=learner, **defaults | facts)


def candidate(index: int, value: float, steps: int) -> Trial:
    return trial("explore", index, value, learner={"inner_steps": steps})


TRIALS = [
    candidate(0, 0.80, steps=1),
    candidate(1, 0.78, steps=2),
    candidate(2, 0.50, steps=3),
    fresh(0, 0.70, 0.60, seed=1, steps=1, test_interval=0.01),
    fresh(1, 0.72, 0.62, seed=2, steps=1, test_interval=0.03),
    fresh(2, 0.77, 0.65, seed=3, steps=1, test_interval=0.02),
    fresh(3, 0.75, 0.66, seed=1, steps=2),
    fresh(4, 0.77, 0.68, seed=2, steps=2),
]


def test_configs_with_the_most_seeds_come_first() -> None:
    of_three, of_two = confirmed_configs(sweep(TRIALS))
    assert of_two.candidate == TRIALS[1]
    assert of_three.candidate == TRIALS[0]
    assert of_three.trials == tuple(TRIALS[3:6])
    assert of_three.seeds == (1, 2, 3)
    assert of_three.val.value == pytest.approx(0.73)
    assert of_three.test.value == pytest.approx(1.87 / 3)
    assert of_three.task_interval == pytest.approx(0.02)


def test_exported_results_have_the_means_on_other_data() -> None:
    scored = [
        fresh(n, 0.7, 0.6, seed=n, steps=1, others={"fc100": OtherScore(0.2 * n, 0.1, "f")})
        for n in (1, 2)
    ]
    of = sweep([candidate(0, 0.8, steps=1), *scored])
    found = confirmed_results(of.trials[0], of)
    assert found.others == pytest.approx({"fc100": 0.3})
    assert Confirmed.model_validate(found.model_dump()) == found
    without = found.model_copy(update={"others": {}}).model_dump()
    assert without == {"seeds": [1, 2], "val": 0.7, "test": 0.6}


def test_intervals_over_seeds_use_students_t() -> None:
    # Quantiles from a table: 4.3027 for two degrees of freedom, 12.7062 for one.
    of_three, of_two = confirmed_configs(sweep(TRIALS))
    deviation = math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2)
    assert of_three.val.interval == pytest.approx(4.3027 * deviation / math.sqrt(3), rel=1e-4)
    assert of_two.val.interval == pytest.approx(12.7062 * 0.01, rel=1e-4)
    assert of_two.test.interval == pytest.approx(12.7062 * 0.01, rel=1e-4)


def test_a_single_seed_has_no_interval_over_seeds() -> None:
    (only,) = confirmed_configs(sweep([TRIALS[0], TRIALS[3]]))
    assert only.val == (0.70, None)
    assert only.test == (0.60, None)


def test_selection_bias_is_the_overstatement_of_the_candidate() -> None:
    of_three, of_two = confirmed_configs(sweep(TRIALS))
    assert of_three.selection_bias == pytest.approx(0.07)
    assert of_two.selection_bias == pytest.approx(0.02)
    assert mean_selection_bias(sweep(TRIALS)) == pytest.approx(0.045)


def test_selection_bias_is_positive_for_a_lower_error() -> None:
    mlp = {"backbone": "mlp"}
    regression = sweep(
        [
            trial("search", 0, 0.4, data=SINUSOID, learner=mlp),
            trial("confirm", 0, 0.5, data=SINUSOID, learner=mlp, seed=1, test_value=0.6,
                  test_interval=0.1),
            trial("confirm", 1, 0.7, data=SINUSOID, learner=mlp, seed=2, test_value=0.6,
                  test_interval=0.1),
        ]
    )  # fmt: skip
    (config,) = confirmed_configs(regression)
    assert config.selection_bias == pytest.approx(0.2)
    other = trial("search", 1, 0.8, data=SINUSOID, learner=mlp | {"inner_steps": 3})
    expected = predict_fresh_seed(other, sweep([*regression.trials, other]))
    assert expected is not None
    assert expected.expected == pytest.approx(1.0)
    assert expected.low == 0.0  # 1 - 12.7 * 0.141 * sqrt(2) is no squared error
    assert expected.high == pytest.approx(1 + 12.7062 * math.sqrt(0.02) * math.sqrt(2), rel=1e-4)


def test_a_config_with_more_seeds_comes_before_a_lucky_one() -> None:
    lucky = [candidate(5, 0.9, steps=5), fresh(5, 0.99, 0.9, seed=1, steps=5)]
    found = confirmed_configs(sweep([*TRIALS, *lucky]))
    assert [len(config.seeds) for config in found] == [3, 2, 1]


def test_incomplete_seeds_are_only_counted() -> None:
    diverged = fresh(5, 0.1, 0.1, seed=3, steps=2, status="diverged")
    running = fresh(6, 0.1, 0.1, seed=4, steps=2, status="running", test_value=None)
    hopeless = fresh(7, 0.9, 0.9, seed=1, steps=9, status="out_of_memory")
    of_three, of_two = confirmed_configs(sweep([*TRIALS, diverged, running, hopeless]))
    assert (of_three.incomplete, of_two.incomplete) == (0, 2)
    assert of_two.val == confirmed_configs(sweep(TRIALS))[1].val


def test_a_config_can_be_confirmed_without_a_candidate() -> None:
    of_three, of_two = confirmed_configs(sweep(TRIALS[1:]))
    assert (of_three.candidate, of_three.selection_bias) == (None, None)
    assert mean_selection_bias(sweep(TRIALS[1:])) == of_two.selection_bias
    assert mean_selection_bias(sweep(TRIALS[3:])) is None


def test_the_better_rank_of_a_repeated_config_counts() -> None:
    again = candidate(7, 0.80, steps=1)
    (config,) = confirmed_configs(sweep([again, *TRIALS[:2], TRIALS[3]]))
    assert config.candidate == TRIALS[0]


def test_cells_of_a_grid_confirm_nothing() -> None:
    cells = [replace(cell, stage="grid", index=i) for i, cell in enumerate(TRIALS[3:])]
    assert confirmed_configs(sweep([*TRIALS[:3], *cells])) == ()
    assert seed_deviation(sweep([*TRIALS[:3], *cells])) is None


values = st.lists(st.floats(0, 1), min_size=1, max_size=5)


@given(groups=st.lists(values, min_size=1, max_size=4))
def test_the_deviation_is_pooled_within_configs(groups: list[list[float]]) -> None:
    trials = [
        fresh(10 * steps + seed, value, 0.5, seed=seed, steps=steps)
        for steps, group in enumerate(groups, 1)
        for seed, value in enumerate(group, 1)
    ]
    residuals = [value - statistics.fmean(group) for group in groups for value in group]
    pooled = len(residuals) - len(groups)
    found = seed_deviation(sweep(trials))
    if pooled == 0:
        assert found is None
    else:
        deviation = math.sqrt(sum(r * r for r in residuals) / pooled)
        assert found is not None
        assert found.deviation == pytest.approx(deviation, abs=1e-12)
        # The configs share their seeds.
        assert found.degrees_of_freedom == max(map(len, groups)) - 1


def test_the_chance_difference_uses_students_t() -> None:
    # Three seeds, two degrees of freedom: 4.3027.
    found = seed_deviation(sweep(TRIALS))
    assert found is not None
    assert found.chance_difference == pytest.approx(4.3027 * math.sqrt(2 * 0.0028 / 3), rel=1e-4)


def test_the_chance_difference_has_nominal_coverage() -> None:
    rng, sweeps, apart = np.random.default_rng(0), 400, 0
    for _ in range(sweeps):
        confirm = [fresh(s, 0.5 + rng.normal(0, 0.02), 0.5, seed=s, steps=1) for s in range(3)]
        found = seed_deviation(sweep(confirm))
        assert found is not None
        apart += abs(rng.normal(0, 0.02) - rng.normal(0, 0.02)) > found.chance_difference
    # At most 5 %, plus three standard errors for 400 samples.
    assert apart / sweeps <= 0.05 + 0.033


def test_a_confirmed_config_is_predicted_from_its_seeds() -> None:
    # Three seeds, two degrees of freedom: 4.3027. Sums of squares: 0.0026 for one config, 0.0002
    # for the other, divided by three.
    half = 4.3027 * math.sqrt(0.0028 / 3) * math.sqrt(1 + 1 / 3)
    found = predict_fresh_seed(TRIALS[0], sweep(TRIALS))
    assert found is not None
    assert found.expected == pytest.approx(0.73)
    assert found.seeds == 3
    assert (found.low, found.high) == pytest.approx((0.73 - half, 0.73 + half), rel=1e-4)


def test_an_unconfirmed_trial_is_corrected_for_selection_bias() -> None:
    half = 4.3027 * math.sqrt(0.0028 / 3) * math.sqrt(2)
    found = predict_fresh_seed(TRIALS[2], sweep(TRIALS))
    assert found is not None
    assert found.expected == pytest.approx(0.50 - 0.045)
    assert found.high - found.expected == pytest.approx(half, rel=1e-4)
    assert found.seeds == 1


def test_predictions_are_clipped_to_the_range_of_accuracy() -> None:
    wide = [candidate(0, 1.0, steps=1)]
    wide += [fresh(i, v, 0.5, seed=i + 1, steps=1) for i, v in enumerate((0.9, 1.0))]
    found = predict_fresh_seed(wide[0], sweep(wide))
    assert found is not None
    assert (found.low, found.high) == (0.0, 1.0)


def test_there_is_no_prediction_without_two_seeds() -> None:
    single = [*TRIALS[:3], TRIALS[3], TRIALS[6]]
    assert predict_fresh_seed(TRIALS[0], sweep(single)) is None


@pytest.mark.thorough
@pytest.mark.parametrize(("seeds", "configs"), [(2, 3), (3, 5)])
@pytest.mark.parametrize("shared", [0.0, 0.74, 0.95])
def test_predictions_have_nominal_coverage(seeds: int, configs: int, shared: float) -> None:
    """Predict the config that is best with one seed, whose own value is biased by selection.

    A seed determines initial weights and tasks, so its effects on two configs are correlated:
    `shared` is the correlation.
    """
    rng, deviation, sweeps = np.random.default_rng(1), 0.02, 400
    inside = 0
    for _ in range(sweeps):
        true = rng.normal(0.6, 0.03, size=configs)
        one = true + rng.normal(0, deviation, size=configs)
        own = rng.normal(size=(configs, seeds)) * math.sqrt(1 - shared)
        noise = deviation * (own + rng.normal(size=seeds) * math.sqrt(shared))
        more = true[:, None] + noise
        trials = [candidate(i, float(one[i]), steps=i + 1) for i in range(configs)]
        trials += [
            fresh(9 * i + s, float(more[i, s]), 0.5, seed=s + 1, steps=i + 1)
            for i in range(configs)
            for s in range(seeds)
        ]
        best = int(one.argmax())
        found = predict_fresh_seed(trials[best], sweep(trials))
        assert found is not None
        inside += found.low <= rng.normal(true[best], deviation) <= found.high
    # At least 95 %, minus three standard errors for 400 samples.
    assert inside / sweeps >= 0.95 - 0.033
