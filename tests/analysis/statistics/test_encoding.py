import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from analysis.statistics.encoding import (
    cube_features,
    encode,
    params,
    unit_coordinate,
    with_loop_distances,
)
from memmeta.config import LearnerConfig
from sweeps.engine.study.dimension import dimension
from sweeps.engine.study.space import at
from tests.analysis.made_up import trial

BASE = LearnerConfig()
ALGORITHMS = {
    "algorithm": dimension("algorithm", ["memory_reduced", "anil"]),
    "cg_steps": dimension("cg_steps", {"low": 1, "high": 20}),
    "inner_lr": dimension("inner_lr", {"low": 0.01, "high": 1.0, "log": True}),
}


@st.composite
def floats(draw: st.DrawFn) -> dict[str, Any]:
    low = draw(st.floats(1e-6, 1.0))
    steps = draw(st.integers(0, 12))
    if steps:
        low = draw(st.integers(1, 4)) * 0.25
        return {"low": low, "high": low + steps * 0.25, "step": 0.25}
    return {"low": low, "high": low * draw(st.floats(1.0, 1e6)), "log": draw(st.booleans())}


@st.composite
def integers(draw: st.DrawFn) -> dict[str, Any]:
    low, steps = draw(st.integers(1, 30)), draw(st.integers(0, 40))
    if draw(st.booleans()):
        return {"low": low, "high": low + steps, "log": True}
    step = draw(st.integers(1, 5))
    return {"low": low, "high": low + steps * step, "step": step}


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, BaseDistribution]:
    numbers = {"ridge": floats(), "inner_lr": floats(), "task_batch": integers()}
    choices = {
        "algorithm": st.just(["anil", "memory_reduced", "itd_bio"]),
        "cg_steps": integers(),
        "feature_reuse": st.just([True, False]),
        "head_width": st.just([32]),
    }
    names = draw(st.permutations([*numbers, *choices]))
    of = numbers | choices
    chosen = names[: draw(st.integers(1, len(names)))]
    return {name: dimension(name, draw(of[name])) for name in chosen}


@pytest.mark.thorough
@given(spaces(), st.data())
def test_unit_coordinates_match_the_design(
    space: dict[str, BaseDistribution], data: st.DataObject
) -> None:
    point = [data.draw(st.floats(0, 1, exclude_max=True)) for _ in space]
    decoded = at(point, space, BASE)
    shares = [
        unit_coordinate(decoded[name], distribution) if name in decoded else coordinate
        for (name, distribution), coordinate in zip(space.items(), point, strict=True)
    ]
    again = at(np.clip(shares, 0, 1 - 1e-12).tolist(), space, BASE)
    assert again.keys() == decoded.keys()
    for name, value in decoded.items():
        assert again[name] == (pytest.approx(value) if isinstance(value, float) else value)


@pytest.mark.thorough
@given(spaces(), st.data())
def test_configs_and_features_correspond_one_to_one(
    space: dict[str, BaseDistribution], data: st.DataObject
) -> None:
    coordinate = st.floats(0, 1, exclude_max=True)
    points = np.array([[data.draw(coordinate) for _ in space] for _ in range(2)])
    first, second = cube_features(points, space, BASE)
    assert first.min() >= -1e-12
    assert first.max() <= 1 + 1e-12
    one, other = (at(point, space, BASE) for point in points)
    differ = any(
        isinstance(one.get(name), str | int) and one.get(name) != other.get(name)
        for name in one.keys() | other.keys()
    )
    if one == other:
        assert (first == second).all()
    if differ:
        assert not np.allclose(first, second)


@given(st.floats(0, 1))
def test_a_logarithmic_range_is_encoded_by_its_logarithm(place: float) -> None:
    space = {"ridge": dimension("ridge", {"low": 1e-4, "high": 1e-1, "log": True})}
    assert encode([{"ridge": 10 ** (-4 + 3 * place)}], space)[0, 0] == pytest.approx(place)


def test_an_integer_is_in_the_middle_of_its_interval() -> None:
    space = {"task_batch": dimension("task_batch", {"low": 1, "high": 4})}
    features = encode([{"task_batch": value} for value in (1, 2, 3, 4)], space)
    assert features[:, 0] == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8])


def test_choices_are_one_hot_and_absent_dimensions_neutral() -> None:
    rows = [
        {"algorithm": "memory_reduced", "cg_steps": 20, "inner_lr": 0.1},
        {"algorithm": "anil", "inner_lr": 1.0},
    ]
    expected = [[1, 0, 39 / 40, 0.5], [0, 1, 0.5, 1]]
    assert encode(rows, ALGORITHMS) == pytest.approx(np.array(expected))
    kinds = {"feature_reuse": dimension("feature_reuse", [True, False])}
    assert encode([{}, {"feature_reuse": False}], kinds).tolist() == [[0, 0], [0, 1]]


def test_params_are_those_that_apply() -> None:
    of = trial("explore", 0, 0.5, learner={"algorithm": "anil", "inner_lr": 0.1})
    assert params(of, ALGORITHMS) == {"algorithm": "anil", "inner_lr": 0.1}
    of = trial("explore", 0, 0.5, learner={"cg_steps": 7, "inner_lr": 0.1})
    assert params(of, ALGORITHMS)["cg_steps"] == 7


def test_a_single_value_has_a_feature() -> None:
    space = {
        "ridge": dimension("ridge", {"low": 0.1, "high": 0.1}),
        "inner_steps": dimension("inner_steps", {"low": 5, "high": 5, "log": True}),
        "norm": dimension("norm", ["group"]),
    }
    features = cube_features(np.array([[0.0, 0.5, 0.9]]), space, BASE)
    log = (math.log(5) - math.log(4.5)) / (math.log(5.5) - math.log(4.5))
    assert features == pytest.approx(np.array([[0.5, log, 1.0]]))


def test_a_space_without_dimensions_has_a_row_per_config() -> None:
    assert encode([{}, {}], {}).shape == (2, 0)


def test_loop_distances_are_scaled_logarithms() -> None:
    space = {
        "norm": CategoricalDistribution(["batch", "group"]),
        "inner_lr": FloatDistribution(0.01, 1.0, log=True),
        "outer_lr": FloatDistribution(1e-4, 1e-2, log=True),
        "inner_steps": IntDistribution(1, 40, log=True),
        "task_batch": IntDistribution(2, 32, log=True),
    }
    rng = np.random.default_rng(0)
    cube = rng.random((50, len(space)))
    features = cube_features(cube, space, LearnerConfig())
    rows = [at(point, space, LearnerConfig()) for point in cube.tolist()]
    found = with_loop_distances(features, space)
    np.testing.assert_array_equal(found[:, : features.shape[1]], features)
    moved = np.array(
        [[r["inner_lr"] * r["inner_steps"], r["outer_lr"] / r["task_batch"]] for r in rows]
    )
    # An integer covers half a step on either side.
    ends = np.array([[0.01 * 0.5, 1.0 * 40.5], [1e-4 / 32.5, 1e-2 / 1.5]])
    expected = np.log(moved / ends[:, 0]) / np.log(ends[:, 1] / ends[:, 0])
    np.testing.assert_allclose(found[:, features.shape[1] :], expected, atol=1e-12)


def test_loop_distances_need_two_logarithmic_dimensions() -> None:
    space = {
        "inner_lr": FloatDistribution(0.01, 1.0, log=True),
        "outer_lr": FloatDistribution(1e-4, 1e-2, log=True),
        "task_batch": IntDistribution(2, 32),
    }
    features = cube_features(np.full((3, 3), 0.3), space, LearnerConfig())
    np.testing.assert_array_equal(with_loop_distances(features, space), features)
