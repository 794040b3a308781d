"""Designs, against scipy and brute force."""

import itertools
import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution
from scipy.stats import qmc

from memmeta.config import DataConfig, TrainingConfig
from memmeta.errors import InputError
from sweeps.engine.study import design
from sweeps.engine.study.study import Study

SPACE = {
    "inner_lr": FloatDistribution(0.01, 1.0, log=True),
    "ridge": FloatDistribution(2.0, 4.0),
    "head": CategoricalDistribution(("linear", "mlp")),
}


def study(**changes):
    values = {
        "name": "s",
        "data": DataConfig(),
        "training": TrainingConfig(iterations=10),
        "space": SPACE,
    }
    return Study(**values | changes)


@pytest.mark.parametrize(("seed", "index"), [(0, 0), (0, 7), (3, 1023), (3, 1024), (1, 5000)])
def test_points_equal_those_of_scipy(seed, index):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        params = design.sobol_point(study(), seed, index)
    x, y, z = qmc.Sobol(3, scramble=True, rng=seed).random_base2(13)[index]
    expected = {"inner_lr": 10 ** (2 * x - 2), "ridge": 2 + 2 * y}
    assert params.pop("head") == ("linear" if z < 0.5 else "mlp")
    assert params == pytest.approx(expected)


def test_a_sobol_point_does_not_depend_on_other_points():
    alone = {}
    for index in (5, 2000):
        design._points.cache_clear()
        alone[index] = design.sobol_point(study(), 0, index)
    assert {index: design.sobol_point(study(), 0, index) for index in (2000, 5)} == alone


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sixteen_points_fall_into_sixteen_equal_bins_of_every_range(seed):
    params = [design.sobol_point(study(), seed, index) for index in range(16)]
    parts = [int(16 * (math.log10(p["inner_lr"]) + 2) / 2) for p in params]
    assert sorted(parts) == list(range(16))
    assert sorted(int(16 * (p["ridge"] - 2) / 2) for p in params) == list(range(16))
    assert sum(p["head"] == "mlp" for p in params) == 8


def test_another_seed_gives_other_points():
    assert design.sobol_point(study(), 0, 3) != design.sobol_point(study(), 1, 3)


def test_a_space_without_dimensions_has_one_point():
    assert design.sobol_point(study(space={}), 0, 9) == {}


def test_each_cell_of_a_grid_holds_the_params_to_try():
    grid = {"inner_steps": [1, 5], "cg_steps": [2, 3]}
    cells = [{"inner_steps": k, "cg_steps": n} for k in (1, 5) for n in (2, 3)]
    assert design.grid_cells(study(grid=grid)) == [[cell] for cell in cells]
    tuned = study(grid=grid, tuned={"inner_lr": [0.1, 1.0], "norm": ["batch", "group"]})
    assert design.grid_cells(tuned) == [
        [{**cell, "inner_lr": lr, "norm": norm} for lr in (0.1, 1.0) for norm in ("batch", "group")]
        for cell in cells
    ]


def test_inactive_fields_are_not_tuned():
    cells = design.grid_cells(
        study(grid={"inner_steps": [0, 1]}, tuned={"inner_lr": [0.1, 1.0], "ridge": [0.1]})
    )
    assert cells == [
        [{"inner_steps": 0, "ridge": 0.1}],
        [{"inner_steps": 1, "inner_lr": lr, "ridge": 0.1} for lr in (0.1, 1.0)],
    ]


values = st.fixed_dictionaries(
    {},
    optional={
        "cg_steps": st.sampled_from([[1], [1, 2, 3]]),
        "inner_steps": st.sampled_from([[1], [2, 5]]),
        "feature_reuse": st.sampled_from([[True], [False, True]]),
        "algorithm": st.lists(
            st.sampled_from(["memory_reduced", "itd_bio", "anil", "maml"]), min_size=1, unique=True
        ),
    },
)


@given(grid=values)
def test_a_grid_has_every_combination_once_without_inactive_fields(grid):
    cells = design.grid_cells(study(grid=grid))
    expected = set()
    for combination in itertools.product(*grid.values()):
        params = dict(zip(grid, combination, strict=True))
        algorithm = params.get("algorithm", "memory_reduced")
        if algorithm != "memory_reduced":
            params.pop("cg_steps", None)
        if algorithm in ("memory_reduced", "maml"):
            params.pop("feature_reuse", None)
        expected.add(frozenset(params.items()))
    found = [frozenset(params.items()) for (params,) in cells]
    assert len(found) == len(set(found))
    assert set(found) == expected
    if not {"algorithm", "feature_reuse", "cg_steps"} & grid.keys():
        assert len(cells) == math.prod(map(len, grid.values()))


@pytest.mark.parametrize(
    ("text", "field", "values"),
    [
        ("inner_steps=1,5,20", "inner_steps", [1, 5, 20]),
        ("norm=batch, group", "norm", ["batch", "group"]),
        ("chunk=null,50", "chunk", [None, 50]),
        ("first_order=true,false", "first_order", [True, False]),
        ("feature_scaling=none", "feature_scaling", ["none"]),
    ],
)
def test_a_grid_is_read_from_the_command_line(text, field, values):
    assert design.parse_grid("--grid", [text]) == {field: values}


@pytest.mark.parametrize("text", ["", "inner_steps", "=1", "inner_steps=", "a=1,,2", "a=[1,2]"])
def test_an_invalid_grid_option_is_refused_in_one_line(text):
    with pytest.raises(InputError) as refusal:
        design.parse_grid("--tune", ["ridge=1", text])
    assert refusal.value.message == (
        f"--tune {text!r}: FIELD=VALUE,VALUE,... is accepted, such as inner_steps=1,5,20"
    )
