"""The short names for distributions, against Optuna's own."""

import warnings

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sweeps import Study, choice, integers, logintegers, loguniform, uniform


def test_distributions_are_optunas():
    assert uniform(-1, 2) == FloatDistribution(-1, 2)
    assert uniform(0, 1, step=0.25) == FloatDistribution(0, 1, step=0.25)
    assert loguniform(0.1, 10) == FloatDistribution(0.1, 10, log=True)
    assert integers(1, 9) == IntDistribution(1, 9)
    assert integers(2, 8, step=2) == IntDistribution(2, 8, step=2)
    assert logintegers(1, 40) == IntDistribution(1, 40, log=True)
    assert choice(["batch", "group"]) == CategoricalDistribution(("batch", "group"))


@pytest.mark.parametrize("make", [uniform, loguniform, integers, logintegers])
def test_an_empty_range_is_refused(make):
    with pytest.raises(ValueError, match=r"low.*high"):
        make(3, 1)


def test_a_study_takes_dicts_and_distributions():
    study = Study(
        name="mine",
        data={"name": "glyphs", "shots": 1},
        learner={"filters": 8},
        training={"tasks": 600},
        space={"inner_lr": loguniform(0.03, 3), "norm": choice(["batch", "group"])},
    )
    assert (study.data.shots, study.learner.filters, study.training.tasks) == (1, 8, 600)
    assert study.model_dump()["space"] == {
        "inner_lr": {"low": 0.03, "high": 3.0, "log": True},
        "norm": ["batch", "group"],
    }


def test_a_study_refuses_a_range_that_does_not_suit_the_field():
    with warnings.catch_warnings(action="error"), pytest.raises(ValueError, match="inner_steps"):
        Study(name="s", data={}, training={"tasks": 1}, space={"inner_steps": loguniform(1, 2)})
