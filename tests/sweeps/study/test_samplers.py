"""The registry of samplers."""

import pytest
from optuna.samplers import RandomSampler

from memmeta.config import DataConfig, TrainingConfig
from memmeta.errors import InputError
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.study import Study
from sweeps.engine.study.samplers import SAMPLERS

STUDY = Study(name="s", data=DataConfig(), training=TrainingConfig(iterations=10))


def test_a_registered_sampler_proposes_trials(tmp_path, monkeypatch):
    seeds = []

    def make_sampler(seed):
        seeds.append(seed)
        return RandomSampler(seed=seed)

    monkeypatch.setitem(SAMPLERS, "new", make_sampler)
    trial = Ledger(STUDY.changed(sampler="new"), 3, tmp_path).propose()
    assert set(STUDY.space) <= trial.run.learner.model_dump().keys()
    assert seeds == [30_000]


def test_an_unknown_sampler_is_refused():
    with pytest.raises(InputError, match="sampler: accepted are tpe, gp, nsgaii, random"):
        STUDY.changed(sampler="new")
