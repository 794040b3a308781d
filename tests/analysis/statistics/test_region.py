"""Regions of the space, and the trials in them."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from analysis.statistics.region import narrow, parse_region, trials_inside
from memmeta.errors import InputError
from tests.analysis.made_up import trial

SPACE = {
    "inner_lr": FloatDistribution(0.03, 3.0, log=True),
    "ridge": FloatDistribution(0.0, 1.0),
    "weight_decay": FloatDistribution(0.0, 1.0, step=0.25),
    "inner_steps": IntDistribution(0, 40),
    "cg_steps": IntDistribution(1, 20, log=True),
    "norm": CategoricalDistribution(["batch", "group"]),
}


def test_ranges_become_narrower_and_keep_their_scale() -> None:
    found = narrow(SPACE, parse_region(["inner_lr=0.03,1", "ridge=0.1,0.5", "cg_steps=2,9"]))
    assert found == SPACE | {
        "inner_lr": FloatDistribution(0.03, 1.0, log=True),
        "ridge": FloatDistribution(0.1, 0.5),
        "cg_steps": IntDistribution(2, 9, log=True),
    }
    assert list(found) == list(SPACE)
    assert narrow(SPACE, {}) == SPACE


def test_a_region_includes_its_ends_and_absent_dimensions() -> None:
    learners = [
        {"inner_lr": 0.029},
        {"inner_lr": 0.03},
        {"inner_lr": 1.0},
        {"inner_lr": 1.001},
        {"inner_lr": 2.0, "inner_steps": 0},
    ]
    trials = [trial("explore", n, 0.5, learner=learner) for n, learner in enumerate(learners)]
    assert [one.index for one in trials_inside(trials, SPACE, {"inner_lr": (0.03, 1.0)})] == [
        1,
        2,
        4,
    ]
    assert trials_inside(trials, SPACE, {}) == tuple(trials)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["inner_lr"], "NAME=LOW,HIGH is accepted"),
        (["inner_lr=1"], "NAME=LOW,HIGH is accepted"),
        (["inner_lr=1,b"], "NAME=LOW,HIGH is accepted"),
        (["inner_lr=0.1,1", "inner_lr=0.1,2"], "inner_lr is given twice"),
        (["outer_lr=0.1,1"], "outer_lr: the space has inner_lr, ridge"),
        (["norm=0,1"], "choices or steps"),
        (["weight_decay=0,0.5"], "choices or steps"),
        (["inner_lr=0.01,1"], "LOW and HIGH are accepted, from 0.03 to 3"),
        (["inner_lr=1,0.1"], "LOW and HIGH are accepted, from 0.03 to 3"),
        (["inner_lr=0.1,nan"], "LOW and HIGH are accepted, from 0.03 to 3"),
        (["cg_steps=1,2.5"], "cg_steps takes integers"),
    ],
)
def test_an_invalid_region_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(InputError) as refusal:
        narrow(SPACE, parse_region(texts))
    assert said in refusal.value.message
    assert refusal.value.message.removeprefix("--").startswith("within ")
