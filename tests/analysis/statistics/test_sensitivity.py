import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import qmc

from analysis.records.trials import Trial
from analysis.statistics import averages, cross_validation, posterior, sensitivity, sobol
from analysis.statistics.averages import Curve
from analysis.statistics.cross_validation import R2
from analysis.statistics.responses import PEAK_MEMORY, STEP_TIME, quality
from analysis.statistics.sensitivity import THRESHOLD, Sensitivity, analyse
from analysis.statistics.sobol import Index
from memmeta.config import LearnerConfig
from memmeta.metric import ACCURACY
from sweeps.engine.study.dimension import dimension
from sweeps.engine.study.space import at
from tests.analysis.made_up import MIB, trial

ACCURACY_RESPONSE = quality(ACCURACY)
BASE = LearnerConfig()
RATES = {"low": 1e-3, "high": 1.0, "log": True}
THREE = {name: dimension(name, RATES) for name in ("inner_lr", "outer_lr", "ridge")}
RIDGE = {
    "inner_lr": dimension("inner_lr", {"low": 0.01, "high": 1.0, "log": True}),
    "inner_steps": dimension("inner_steps", {"low": 1, "high": 40, "log": True}),
    "task_batch": dimension("task_batch", {"low": 4, "high": 16, "step": 4}),
    "outer_lr": dimension("outer_lr", {"low": 1e-4, "high": 1e-2, "log": True}),
}

Params = Mapping[str, Any]


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluate surrogates at fewer points, which is faster and otherwise the same."""
    monkeypatch.setattr(averages, "_CURVE_VALUES", 9)
    monkeypatch.setattr(averages, "_MAP_VALUES", 7)
    monkeypatch.setattr(cross_validation, "_SHUFFLES", 2)


def explore(
    space: Mapping[str, Any],
    count: int,
    value: Callable[[Params], float],
    noise: float = 0.0,
    seed: int = 0,
    facts: Callable[[Params], Mapping[str, Any]] = lambda _: {},
) -> list[Trial]:
    """Trials of a Sobol design."""
    generator = np.random.default_rng(seed)
    cube = qmc.Sobol(len(space), rng=seed).random_base2(math.ceil(math.log2(count)))[:count]
    designed = [at(point, space, BASE) for point in cube]
    return [
        trial(
            "explore",
            number,
            value(params) + noise * generator.normal(),
            learner=params,
            **facts(params),
        )
        for number, params in enumerate(designed)
    ]


def places(params: Params) -> list[float]:
    """Coordinates of the three rates: 0 at 1e-3, 1 at 1."""
    return [1 + math.log10(params[name]) / 3 for name in THREE]


def of(result: Sensitivity) -> dict[str, Index]:
    return {index.name: index for index in result.indices}


def curve(result: Sensitivity, name: str) -> Curve:
    return next(curve for curve in result.curves if curve.name == name)


def ishigami(params: Params) -> float:
    x, y, z = (2 * math.pi * place - math.pi for place in places(params))
    return math.sin(x) + 7 * math.sin(y) ** 2 + 0.1 * z**4 * math.sin(x)


def additive(params: Params) -> float:
    x, y, z = places(params)
    return 0.3 + 0.2 * x + 0.1 * y + 0.04 * z


def ridge(params: Params) -> float:
    moved = math.log(params["inner_lr"] * params["inner_steps"])
    batch: int = params["task_batch"]
    return 0.3 + 0.4 * math.exp(-(((moved - 0.3) / 1.2) ** 2)) + 0.008 * batch


def test_ishigami_has_the_known_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_validation, "_FOLDS", 3)
    result = analyse(explore(THREE, 256, ishigami), THREE, ACCURACY_RESPONSE)
    # Saltelli et al. 2008, "Global Sensitivity Analysis: The Primer", for a = 7, b = 0.1.
    p4, p8 = math.pi**4, math.pi**8
    by_itself = [0.5 * (1 + p4 / 50) ** 2, 49 / 8, 0.0]
    together = 8 * p8 / 225 / 100
    variance = sum(by_itself) + together
    totals = [by_itself[0] + together, by_itself[1], together]
    assert result.supported
    for name, first, total in zip(THREE, by_itself, totals, strict=True):
        index = of(result)[name]
        assert index.first.value == pytest.approx(first / variance, abs=0.05)
        assert index.total.value == pytest.approx(total / variance, abs=0.05)
        assert index.first.low <= first / variance <= index.first.high
        assert index.total.low <= total / variance <= index.total.high
    strongest, *rest = result.interactions
    assert strongest.names == ("inner_lr", "ridge")
    assert strongest.value == pytest.approx(together / variance, abs=0.05)
    assert all(interaction.value < 0.05 for interaction in rest)
    assert [index.name for index in result.indices] == ["inner_lr", "outer_lr", "ridge"]


def exact_ridge_indices() -> dict[str, tuple[float, float]]:
    """First- and total-order indices of `ridge` by summing over a product grid."""
    rates = np.exp(np.log(0.01) + (np.arange(800) + 0.5) / 800 * np.log(100))
    steps = np.arange(1, 41)
    edges = np.log(np.arange(0.5, 41))
    weights = np.diff(edges) / (edges[-1] - edges[0])
    moved = np.log(rates[:, None] * steps)
    values = 0.4 * np.exp(-(((moved - 0.3) / 1.2) ** 2))
    mean = (values @ weights).mean()
    of_rate = np.var(values @ weights)
    of_steps = weights @ (values.mean(axis=0) - mean) ** 2
    both = (values - mean) ** 2 @ weights
    batch = np.var(0.008 * np.array([4, 8, 12, 16]))
    variance = both.mean() + batch
    return {
        "inner_lr": (of_rate / variance, (both.mean() - of_steps) / variance),
        "inner_steps": (of_steps / variance, (both.mean() - of_rate) / variance),
        "task_batch": (batch / variance, batch / variance),
        "outer_lr": (0.0, 0.0),
    }


def test_a_ridge_is_recovered_from_64_noisy_trials() -> None:
    result = analyse(explore(RIDGE, 64, ridge, noise=0.02), RIDGE, ACCURACY_RESPONSE)
    for name, (first, total) in exact_ridge_indices().items():
        index = of(result)[name]
        assert index.first.value == pytest.approx(first, abs=0.08)
        assert index.total.value == pytest.approx(total, abs=0.08)
        assert index.first.low <= first <= index.first.high
        assert index.total.low <= total <= index.total.high
    assert result.interactions[0].names == ("inner_lr", "inner_steps")
    best = max((row[place], row, place) for row in result.maps[0].mean for place in range(7))
    y = result.maps[0].y[result.maps[0].mean.index(best[1])]
    assert math.log(result.maps[0].x[best[2]] * y) == pytest.approx(0.3, abs=0.7)


def test_step_size_and_steps_always_have_a_map() -> None:
    space = {**RIDGE, "ridge": THREE["ridge"]}

    def other(params: Params) -> float:
        batch: int = params["task_batch"]
        return batch / 40 * math.log10(params["ridge"] * params["outer_lr"] * 1e4)

    result = analyse(explore(space, 64, other), space, ACCURACY_RESPONSE)
    assert result.maps[-1].names == ("inner_lr", "inner_steps")
    assert [pair.names for pair in result.maps[:2]] == [
        interaction.names for interaction in result.interactions[:2]
    ]
    assert {pair.names for pair in result.maps[:2]} == {
        ("task_batch", "outer_lr"),
        ("task_batch", "ridge"),
    }


@pytest.mark.thorough
def test_intervals_and_bands_have_nominal_coverage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module, name, value in (
        (sobol, "_POINTS", 256),
        (sobol, "_POINTS_OF_DRAWS", 256),
        (averages, "_CURVE_POINTS", 32),
        (averages, "_CURVE_VALUES", 5),
        (averages, "_MAP_VALUES", 2),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(cross_validation, "_FOLDS", 4)
    monkeypatch.setattr(posterior, "_KERNELS", 12)
    slopes = np.array([0.2, 0.1, 0.04])
    truth = dict(zip(THREE, slopes**2 / (slopes**2).sum(), strict=True))
    indices, bands, widths = [], [], []
    for seed in range(20):
        trials = explore(THREE, 32, additive, noise=0.02, seed=seed)
        result = analyse(trials, THREE, ACCURACY_RESPONSE, seed)
        for name, slope in zip(THREE, slopes, strict=True):
            for order in (of(result)[name].first, of(result)[name].total):
                indices.append(order.low <= truth[name] <= order.high)
                widths.append(order.high - order.low)
            band = curve(result, name)
            exact = 30 + 100 * (slopes.sum() / 2 + slope * np.linspace(-0.5, 0.5, 5))
            bands += list((np.array(band.low) <= exact) & (exact <= np.array(band.high)))
    assert np.mean(indices) > 0.9
    assert np.mean(bands) > 0.88
    assert np.mean(widths) < 0.35


def test_main_effects_of_an_additive_response_are_its_terms() -> None:
    result = analyse(explore(THREE, 64, additive, noise=0.002), THREE, ACCURACY_RESPONSE)
    for name, slope in zip(THREE, (20, 10, 4), strict=True):
        found = curve(result, name)
        assert found.x[0] == pytest.approx(1e-3)
        assert found.x[-1] == pytest.approx(1)
        exact = [47 + slope * (0.5 + math.log10(x) / 3) for x in found.x]
        assert found.mean == pytest.approx(exact, abs=0.3)
        inside = [
            low <= value <= high
            for low, value, high in zip(found.low, exact, found.high, strict=True)
        ]
        assert np.mean(inside) > 0.8
        assert max(np.subtract(found.high, found.low)) < 1.5


def test_a_logarithmic_response_is_averaged_in_its_unit() -> None:
    def facts(params: Params) -> Mapping[str, Any]:
        memory = 5 * MIB * params["task_batch"] * params["inner_steps"] ** 0.5
        return {"peak_memory_bytes": round(memory), "seconds_per_step": 0.01 * params["task_batch"]}

    trials = explore(RIDGE, 32, lambda _: 0.5, facts=facts)
    memory, time = (analyse(trials, RIDGE, response) for response in (PEAK_MEMORY, STEP_TIME))
    assert curve(time, "task_batch").x == (4, 8, 12, 16)
    assert curve(time, "task_batch").mean == pytest.approx([0.04, 0.08, 0.12, 0.16], rel=0.02)
    assert of(time)["task_batch"].total.value > 0.98
    # The geometric mean of a product is the product of the geometric means.
    edges = np.log(np.arange(0.5, 41))
    steps = np.diff(edges) @ np.log(np.arange(1, 41)) / (edges[-1] - edges[0])
    exact = 5 * np.exp(steps / 2) * np.array([4, 8, 12, 16])
    assert curve(memory, "task_batch").mean == pytest.approx(exact, rel=0.02)


def test_choices_and_dimensions_that_do_not_always_apply_are_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(averages, "_CURVE_VALUES", 33)
    space = {
        "algorithm": dimension("algorithm", ["memory_reduced", "anil"]),
        "cg_steps": dimension("cg_steps", {"low": 1, "high": 20}),
        "norm": dimension("norm", ["batch"]),
        "ridge": THREE["ridge"],
    }

    def value(params: Params) -> float:
        return 0.4 + 0.02 * params["cg_steps"] if "cg_steps" in params else 0.3

    result = analyse(explore(space, 64, value), space, ACCURACY_RESPONSE)
    # cg_steps is uniform on 1..20, and both algorithms are equally likely.
    spread = 4 * np.var(np.arange(1, 21))
    difference = (61 - 30) ** 2 / 4
    variance = difference + spread / 2
    assert of(result)["algorithm"].first.value == pytest.approx(difference / variance, abs=0.05)
    assert of(result)["cg_steps"].total.value == pytest.approx(spread / 2 / variance, abs=0.05)
    assert of(result)["norm"].total.value == pytest.approx(0, abs=1e-9)
    assert curve(result, "algorithm").x == ("memory_reduced", "anil")
    assert curve(result, "algorithm").mean == pytest.approx([61, 30], abs=2)
    assert curve(result, "norm").x == ("batch",)
    halved = [(30 + 40 + 2 * steps) / 2 for steps in range(1, 21)]
    assert curve(result, "cg_steps").x == tuple(range(1, 21))
    assert curve(result, "cg_steps").mean == pytest.approx(halved, abs=1.5)


def test_a_single_dimension_explains_everything() -> None:
    space = {"ridge": THREE["ridge"]}
    trials = explore(space, 16, lambda params: -math.log10(params["ridge"]))
    result = analyse(trials, space, ACCURACY_RESPONSE)
    assert of(result)["ridge"].first.value == pytest.approx(1, abs=0.02)
    assert (result.interactions, result.maps) == ((), ())


def needed(result: Sensitivity) -> int:
    """The number of trials that a refusal estimates."""
    found = re.search(r"about (\d+) trials would", result.verdict)
    assert found
    return int(found[1])


def test_pure_noise_is_refused() -> None:
    trials = explore(THREE, 32, lambda _: 0.5, noise=0.1)
    result = analyse(trials, THREE, ACCURACY_RESPONSE)
    assert result.r2 is not None
    assert result.r2.high < 0.3
    assert not result.supported
    assert (result.indices, result.interactions, result.curves, result.maps) == ((),) * 4
    assert result.verdict == (
        f"R² {result.r2.low:.2f} to {result.r2.high:.2f} from 32 trials: the data do not support "
        "indices, and there is no sign that more trials would"
    )


def test_a_refusal_estimates_how_many_trials_suffice() -> None:
    def across(params: Params) -> float:
        x, y, z = places(params)
        return 0.3 + 0.4 * math.exp(-(((x + y - 1) / 0.22) ** 2)) + 0.05 * z

    trials = explore(THREE, 16, across, noise=0.02, seed=3)
    lost = [trial("explore", 16 + n, None, status="diverged") for n in range(16)]
    alone, halved = (analyse(some, THREE, ACCURACY_RESPONSE) for some in (trials, trials + lost))
    assert not alone.supported
    assert alone.r2 is not None
    # 64 trials suffice: they give an R² of 0.88.
    assert 16 < needed(alone) <= 64
    assert alone.verdict == (
        f"R² {alone.r2.low:.2f} to {alone.r2.high:.2f} from 16 trials: the data do not support "
        f"indices; about {needed(alone)} trials would"
    )
    # If half of the trials are lost, twice as many are needed.
    assert (halved.trials, halved.left_out) == (16, 16)
    assert needed(halved) == 2 * needed(alone)


def test_a_noisy_linear_response_needs_more_trials() -> None:
    result = analyse(explore(THREE, 24, additive, 0.04, seed=3), THREE, ACCURACY_RESPONSE)
    assert not result.supported
    assert 24 < needed(result) < 240


@pytest.mark.parametrize(
    ("r2", "size", "lost", "said"),
    [
        (
            0.699,
            124,
            0,
            "R² 0.69 to 0.80 from 124 trials: the data do not support indices; about 130",
        ),
        (0.5, 124, 0, "about 130 trials"),
        (0.5, 131, 0, "about 140 trials"),
        (0.5, 248, 124, "about 500 trials"),
        (0.5, 1001, 0, "about 1100 trials"),
    ],
)
def test_the_estimate_exceeds_the_number_of_trials(
    monkeypatch: pytest.MonkeyPatch, r2: float, size: int, lost: int, said: str
) -> None:
    monkeypatch.setattr(sensitivity, "cross_validated_r2", lambda *_: R2((r2 + 0.1, r2)))
    monkeypatch.setattr(sensitivity, "size_for", lambda *_: size)
    trials = explore(THREE, 124, additive)
    trials += [trial("explore", 124 + n, None, status="diverged") for n in range(lost)]
    assert said in analyse(trials, THREE, ACCURACY_RESPONSE).verdict


def test_the_lowest_r2_must_reach_the_threshold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trials = explore(THREE, 16, additive)
    monkeypatch.setattr(sensitivity, "size_for", lambda *_: None)
    monkeypatch.setattr(
        sensitivity, "_supported", lambda judged, *_: replace(judged, supported=True)
    )
    for low, supported in ((THRESHOLD, True), (THRESHOLD - 1e-9, False)):
        monkeypatch.setattr(
            sensitivity, "cross_validated_r2", lambda *_, low=low: R2((0.95, low, 0.9))
        )
        assert analyse(trials, THREE, ACCURACY_RESPONSE).supported is supported


SMALL = {name: dimension(name, {"low": 1, "high": 5}) for name in ("inner_steps", "cg_steps")}


@pytest.mark.parametrize("seed", range(3))
def test_repeated_noise_in_a_small_space_is_refused(seed: int) -> None:
    generator = np.random.default_rng(seed)
    of_configs = {(k, n): generator.normal() for k in range(1, 6) for n in range(1, 6)}

    def noise(params: Params) -> float:
        return 0.5 + 0.02 * of_configs[params["inner_steps"], params["cg_steps"]]

    result = analyse(explore(SMALL, 64, noise, seed=seed), SMALL, ACCURACY_RESPONSE)
    assert result.r2 is not None
    assert result.r2.high < 0.2
    assert not result.supported
    assert (result.trials, result.configs) == (64, 25)
    assert "from 64 trials (25 configs): the data do not support indices" in result.verdict


def test_a_repeat_adds_no_evidence() -> None:
    trials = explore(THREE, 16, additive, noise=0.03, seed=3)
    repeats = [replace(of, index=of.index + 16, run_id=f"again {of.index}") for of in trials[3:9]]
    once, again = (analyse(some, THREE, ACCURACY_RESPONSE) for some in (trials, trials + repeats))
    assert (again.r2, again.indices, again.configs) == (once.r2, once.indices, 16)
    assert again.trials == 22
    of_ten_trials = analyse(trials[:9] + repeats, THREE, ACCURACY_RESPONSE)
    assert of_ten_trials.r2 is None
    assert "15 trials" in of_ten_trials.verdict
    assert "9 different configs" in of_ten_trials.verdict


@pytest.mark.parametrize(("needed", "hope"), [(25, True), (26, False)])
def test_the_estimate_is_limited_by_the_size_of_the_space(
    monkeypatch: pytest.MonkeyPatch, needed: int, hope: bool
) -> None:
    monkeypatch.setattr(sensitivity, "size_for", lambda *_: needed)
    trials = explore(SMALL, 16, lambda params: 0.5 + 0.01 * hash((*params.values(), 1)) % 7)
    result = analyse(trials, SMALL, ACCURACY_RESPONSE)
    assert not result.supported
    assert ("no sign that more trials would" not in result.verdict) is hope


def test_degenerate_inputs_are_refused() -> None:
    nine = explore(THREE, 9, additive)
    refused = analyse(nine, THREE, ACCURACY_RESPONSE)
    assert refused.verdict == (
        "9 trials of stage explore with a validation accuracy: at least 10 are needed"
    )
    constant = analyse(explore(THREE, 16, additive), THREE, PEAK_MEMORY)
    assert constant.verdict == "peak memory is the same in all 16 trials"
    empty = analyse(explore(THREE, 16, additive), {}, ACCURACY_RESPONSE)
    assert empty.verdict == "the space has no dimensions"
    assert {result.r2 for result in (refused, constant, empty)} == {None}
    assert not any(result.supported for result in (refused, constant, empty))


def test_only_complete_trials_of_explore_count() -> None:
    trials = explore(THREE, 16, additive)
    others = [trial("search", n, 0.9) for n in range(8)]
    lost = [trial("explore", 16, None, status="out_of_memory")]
    alone = analyse(trials + lost, THREE, ACCURACY_RESPONSE)
    assert (alone.trials, alone.left_out) == (16, 1)
    assert analyse([*lost, *others, *trials[::-1]], THREE, ACCURACY_RESPONSE) == alone


def test_results_are_reproducible_by_seed() -> None:
    trials = explore(THREE, 16, additive, noise=0.002)
    first = analyse(trials, THREE, ACCURACY_RESPONSE, seed=1)
    assert first.supported
    assert analyse(trials, THREE, ACCURACY_RESPONSE, seed=1) == first
    assert analyse(trials, THREE, ACCURACY_RESPONSE, seed=2).indices != first.indices
