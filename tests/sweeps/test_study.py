import json

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from memmeta.config import DataConfig, TrainingConfig
from memmeta.errors import InputError
from sweeps import (
    cifar_fs,
    fc100,
    glyphs,
    miniimagenet,
    omniglot,
    sinusoid,
    tieredimagenet,
)
from sweeps.engine.study import SPACE, Study

STUDIES = [glyphs, cifar_fs, fc100, miniimagenet, tieredimagenet, omniglot, sinusoid]


def study(**changes):
    values = {
        "name": "s",
        "data": DataConfig(),
        "training": TrainingConfig(iterations=10),
        "trials": 4,
    }
    return Study(**values | changes)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"inner_lrr": FloatDistribution(0.1, 1)}, "space.inner_lrr: unknown key inner_lrr"),
        ({"inner_lr": FloatDistribution(0.0, 1)}, "space.inner_lr: inner_lr: .*greater than 0"),
        ({"task_batch": IntDistribution(0, 4)}, "space.task_batch: task_batch: .*got 0"),
        ({"norm": CategoricalDistribution(["batch", "layer"])}, "space.norm: norm: .*'layer'"),
    ],
)
def test_a_space_that_the_learner_does_not_accept_is_refused(space, said):
    with pytest.raises(InputError, match=said):
        study(space=space)


def test_a_point_of_the_space_becomes_a_run():
    run = study().run_config({"inner_steps": 7, "ridge": 0.5}, seed=3)
    assert (run.learner.inner_steps, run.learner.ridge, run.seed) == (7, 0.5, 3)
    assert run.training == TrainingConfig(iterations=10)


def test_settings_are_json_and_the_name_says_budget_and_seed():
    assert json.loads(json.dumps(study().settings(1))) == study().settings(1)
    assert study().sweep_name(1) == "s-10steps-seed1"
    assert study(training=TrainingConfig(tasks=9)).sweep_name(0) == "s-9tasks-seed0"


@pytest.mark.parametrize("module", STUDIES)
def test_studies_search_what_the_paper_fixes_under_their_own_name(module):
    assert module.STUDY.name == module.__name__.rpartition(".")[2]
    assert set(module.STUDY.space) == set(SPACE)
    assert set(SPACE) == {
        "inner_lr", "outer_lr", "inner_steps", "cg_steps", "task_batch", "ridge"
    }  # fmt: skip


def test_data_and_learner_have_to_go_together():
    with pytest.raises(InputError, match=r"study s: learner\.backbone conv4 does not suit"):
        study(data=DataConfig(name="sinusoid", ways=1))
