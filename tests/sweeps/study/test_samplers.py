"""Samplers by name, by import path and on OptunaHub, with their arguments."""

import sys
from importlib import metadata

import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, QMCSampler, RandomSampler, TPESampler

from memmeta.config import DataConfig, TrainingConfig
from memmeta.errors import InputError
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.ledger.stage_record import SAMPLER
from sweeps.engine.study import Study
from sweeps.engine.study.samplers import SAMPLERS, _Samplers, check_sampler, make_sampler
from tests.sweeps.ledger.test_ledger import result

HERE = __name__
STUDY = Study(name="s", data=DataConfig(), training=TrainingConfig(iterations=10))
SPACE = {"inner_lr": FloatDistribution(0.1, 1.0), "ridge": FloatDistribution(0.1, 1.0)}


class Largest(BaseSampler):
    """A sampler of a user: proposes the upper end of each range."""

    def __init__(self, seed, constraints_func, share=1.0):
        self.seed = seed
        self.share = share
        self.constraints_func = constraints_func
        self.told = []

    def infer_relative_search_space(self, study, trial):
        del study, trial
        return {}

    def sample_relative(self, study, trial, search_space):
        del trial, search_space
        self.told = [self.constraints_func(trial) for trial in study.trials if trial.values]
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution):
        del study, trial, param_name
        return self.share * param_distribution.high


def proposals(ledger, count):
    """Propose and finish trials, and return their params."""
    params = []
    for _ in range(count):
        trial = ledger.propose()
        params.append({name: getattr(trial.run.learner, name) for name in SPACE})
        ledger.report(trial, result(params[-1]["inner_lr"]))
    return params


def test_a_sampler_of_a_user_proposes_trials_with_its_arguments(tmp_path):
    spec = {"name": f"{HERE}:Largest", "share": 0.5}
    ledger = Ledger(STUDY.changed(sampler=spec, space=SPACE), 3, tmp_path)
    first, second = proposals(ledger, 2)
    assert first == {"inner_lr": 0.5, "ridge": 0.5}
    assert second != first  # a repeated proposal is replaced by a point of the design
    attributes = ledger._stages["search"].trials()[0].user_attrs
    assert attributes[SAMPLER] == spec
    sampler = make_sampler(spec, 7)
    assert (sampler.seed, sampler.share) == (7, 0.5)
    sampler.sample_relative(ledger._stages["search"].optuna_study, None, {})
    assert sampler.told[0] == [0.0, 0.0]  # neither diverged nor out of memory


@pytest.mark.parametrize("name", ["optuna.samplers.CmaEsSampler", "optuna.samplers:CmaEsSampler"])
def test_samplers_of_optuna_are_named_with_a_dot_or_a_colon(name):
    study = STUDY.changed(sampler={"name": name, "popsize": 4}, space=SPACE)
    assert study.sampler == {"name": "optuna.samplers:CmaEsSampler", "popsize": 4}
    assert isinstance(make_sampler(study.sampler, 0), CmaEsSampler)
    check_sampler(study.sampler, study.space, ["maximize"])


def test_cma_es_learns_from_the_trials_in_the_record_and_continues(tmp_path):
    study = STUDY.changed(
        sampler={"name": "optuna.samplers.CmaEsSampler", "popsize": 4}, space=SPACE
    )
    proposed = proposals(Ledger(study, 0, tmp_path), 24)
    assert len({tuple(params.values()) for params in proposed}) == 24
    early, late = (sum(p["inner_lr"] for p in part) / 8 for part in (proposed[:8], proposed[-8:]))
    assert late > early + 0.1  # the objective is inner_lr itself

    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        folder.mkdir()
    uninterrupted = proposals(Ledger(study, 0, whole), 12)
    assert proposals(Ledger(study, 0, halves), 6) == uninterrupted[:6]
    assert proposals(Ledger(study, 0, halves), 6) == uninterrupted[6:]


def test_a_seed_among_the_arguments_keeps_a_scrambled_sequence_together(tmp_path):
    spec = {"name": "optuna.samplers:QMCSampler", "scramble": True, "seed": 1}
    ledger = Ledger(STUDY.changed(sampler=spec, space=SPACE), 0, tmp_path)
    proposed = proposals(ledger, 9)[1:]  # the first has no relative search space
    assert isinstance(make_sampler(spec, 0), QMCSampler)
    # Sobol points: of the eight, each quarter of the axis has two.
    quarters = [int((params["inner_lr"] - 0.1) / 0.9 * 4) for params in proposed]
    assert sorted(quarters) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_arguments_of_built_in_samplers():
    sampler = make_sampler(STUDY.changed(sampler={"name": "tpe", "group": True,
                                                  "multivariate": True}).sampler, 0)  # fmt: skip
    assert isinstance(sampler, TPESampler)
    assert sampler._group
    assert STUDY.changed(sampler={"name": "gp"}).sampler == "gp"


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        ("new", "no such sampler, choose from tpe, gp, nsgaii, random"),
        ("gpp", "did you mean gp?"),
        ("optuna.samplers.CmaSampler", "has no object CmaSampler (did you mean CmaEsSampler?)"),
        ("no_such.Sampler", "no_such cannot be imported"),
        ({"name": "tpe", "startup": 3}, "no argument startup"),
        ({"name": "optuna.samplers.CmaEsSampler", "popsiz": 3}, "popsiz (did you mean popsize?)"),
        ({"name": "optuna.samplers.QMCSampler", "qmc_type": "x"}, "qmc_type"),
        ({"popsize": 3}, "a name is accepted, or a name with arguments"),
        (3, "a name is accepted"),
        ({"name": "tpe", "gamma": print}, "numbers, texts, lists and dicts"),
        (f"{HERE}:STUDY", "a class of samplers is expected"),
        ("collections:Counter", "instead of a sampler of Optuna"),
    ],
)
def test_a_sampler_that_cannot_be_made_is_refused_in_one_line(sampler, said):
    with pytest.raises(InputError, match="study s: sampler: ") as refused:
        STUDY.changed(sampler=sampler)
    assert said in refused.value.message
    assert "\n" not in refused.value.message


def test_what_a_sampler_lacks_shows_before_the_first_trial(monkeypatch):
    with pytest.raises(InputError, match=r"sampler: .*multi-objective"):
        check_sampler("optuna.samplers:CmaEsSampler", SPACE, ["maximize", "minimize"])
    monkeypatch.setitem(sys.modules, "cmaes", None)
    monkeypatch.setattr(sys.modules["optuna.samplers._cmaes"], "cmaes", _missing("cmaes"))
    with pytest.raises(InputError, match=r"sampler: .*cmaes"):
        check_sampler("optuna.samplers:CmaEsSampler", SPACE, ["maximize"])


def _missing(name):
    from optuna._imports import _LazyImport

    return _LazyImport(name)


HUB_PACKAGE = """
from optuna.samplers import RandomSampler

class Drawing(RandomSampler):
    pass

{more}
"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """OptunaHub's folder of packages that were downloaded before."""
    monkeypatch.setenv("OPTUNAHUB_CACHE_HOME", str(tmp_path))

    def add(name, more=""):
        folder = tmp_path / "github.com/optuna/optunahub-registry/main/package/samplers" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(HUB_PACKAGE.format(more=more))

    return add


def test_a_sampler_on_optunahub(hub):
    hub("drawing")
    for name in ("drawing", "samplers/drawing", "package/samplers/drawing"):
        study = STUDY.changed(sampler=f"optunahub:{name}")
        assert isinstance(make_sampler(study.sampler, 0), RandomSampler)
        check_sampler(study.sampler, SPACE, ["maximize"])
    hub("two", more="class Other(Drawing): pass")
    assert type(make_sampler("optunahub:two:Other", 0)).__name__ == "Other"
    with pytest.raises(ValueError, match=r"name one of its classes.*\(Drawing, Other\)"):
        make_sampler("optunahub:two", 0)


def test_optunahub_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "optunahub", None)
    with pytest.raises(InputError, match="needs the package optunahub"):
        check_sampler("optunahub:hebo", SPACE, ["maximize"])


def test_installed_packages_offer_samplers_as_entry_points(monkeypatch):
    entries = [metadata.EntryPoint("largest", f"{HERE}:Largest", "memmeta.samplers")]
    monkeypatch.setattr(
        metadata,
        "entry_points",
        lambda **selection: entries if selection == {"group": SAMPLERS._group} else [],
    )
    samplers = _Samplers("sampler", {}, group="memmeta.samplers")
    assert [*samplers] == ["largest"]
    assert samplers["largest"] is Largest
