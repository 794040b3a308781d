"""Results of sweeps, read from a store that simulated sweeps have written."""

import math
import re
import warnings

import pandas as pd
import pytest

import sweeps
from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from memmeta.errors import InputError
from memmeta.exported import Confirmed, read_run
from sweeps import Result
from sweeps.engine.stores.store import default_uri
from tests import ROOT
from tests.analysis.made_up import sweep, trial
from tests.analysis.stand_ins import (
    BEST,
    INTERVAL,
    begin_mixed,
    driven,
    result,
    run_config,
    write_grid,
)


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """A storage folder with sweeps `mixed` and `factorial`, the latter only with a grid."""
    storage = tmp_path_factory.mktemp("results")
    for name, write in (("mixed", begin_mixed), ("factorial", write_grid)):
        with driven(storage / name, name, 0, default_uri(storage), name) as driver:
            write(driver)
    return storage


@pytest.fixture(autouse=True)
def _store_in_the_storage(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def mixed(storage):
    return sweeps.load("mixed", storage=str(storage))


def test_a_result_states_its_sweep(mixed, storage):
    assert (mixed.name, mixed.tracking_uri) == ("mixed-60steps-seed0", default_uri(storage))
    assert repr(mixed) == "<Result mixed-60steps-seed0: 8 of 16 trials complete>"
    assert sweeps.load(mixed.name, storage=storage).name == mixed.name


def test_the_best_config_has_its_results(mixed):
    best = mixed.best
    assert best.config == run_config(**BEST)
    assert (best.value, best.interval) == (2 / 3, INTERVAL)
    assert best.peak_memory == 81_998_337
    assert best.confirmed == Confirmed(seeds=[1, 2], val=0.78125, test=0.53125)
    assert best.run_id in set(mixed.trials().query("stage == 'explore' and index == 1")["run_id"])


def test_the_best_is_within_the_memory_limit():
    trials = [trial("explore", i, 0.5 + i / 10, peak_memory_bytes=2**20 * (i + 1)) for i in (0, 1)]
    assert Result(sweep(trials), "").best.value == 0.6
    assert Result(sweep(trials, memory_limit=2**20), "").best.value == 0.5


def test_a_grid_has_no_best_config(storage):
    with pytest.raises(InputError, match="no complete trial of explore or search"):
        _ = sweeps.load("factorial", storage=storage).best


def test_trials_are_the_table_of_the_report(mixed, tmp_path):
    """pandas reads the file independently."""
    frame = mixed.trials()
    page = mixed.report(str(tmp_path / "report"))
    assert page == tmp_path / "report" / "report.html"
    assert page.exists()
    file = pd.read_csv(page.with_name("trials.csv")).drop(columns=["version", "stage_settings"])
    assert list(frame.columns) == list(file.columns)
    assert len(frame) == 16
    text = [name for name in frame if frame[name].dtype.kind not in "bif"]
    numbers = [name for name in frame if name not in text]
    assert {"index", "value", "test_value", "peak_memory_bytes", "inner_lr", "seed"} < {*numbers}
    pd.testing.assert_frame_equal(frame[numbers], file[numbers], check_dtype=False)
    # CSV text has an apostrophe before what could be a formula.
    names = ["stage", "status", "run_name", "key", "dataset", "algorithm"]
    assert frame[names].to_dict() == file[names].to_dict()


def test_missing_values_are_nan(mixed):
    frame = mixed.trials()
    untested = frame[frame["stage"] != "confirm"]
    assert untested["test_value"].isna().all()
    assert frame["chunk"].dtype.kind == "f"
    assert frame["message"].map(lambda text: isinstance(text, str) or math.isnan(text)).all()


def test_every_column_is_documented(mixed):
    page = (ROOT / "docs/how-to/python.md").read_text()
    rows = re.findall(r"^\| (`.*?`) \|", page, flags=re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    # Columns of the data sets of `evaluate_on`, which this sweep lacks.
    documented = {name for name in documented if not name.endswith("_NAME")}
    config = {*DataConfig.model_fields, *LearnerConfig.model_fields, *TrainingConfig.model_fields}
    assert documented == set(mixed.trials().columns) - (config - {"name"})


def test_configs_are_exported_like_by_the_command(mixed, tmp_path):
    path = mixed.export(str(tmp_path / "best.yaml"), top=2)
    assert path == tmp_path / "best.yaml"
    assert read_run(path, rank=1).config == mixed.best.config
    with pytest.raises(InputError, match="no run of rank 3"):
        read_run(path, rank=3)
    assert f"--tracking-uri {mixed.tracking_uri}" in path.read_text()


def test_fewer_configs_than_asked_for_are_a_warning(mixed, tmp_path):
    with pytest.warns(UserWarning, match="only 3 different configs") as warned:
        mixed.export(tmp_path / "best.yaml", top=9)
    assert warned[0].filename == __file__
    with warnings.catch_warnings(action="error"):
        mixed.export(tmp_path / "best.yaml", top=None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": "best.txt"}, "must end in"),
        ({"top": 0}, "top: .* got 0"),
        ({"max_memory": "much"}, "max_memory: bytes above 0 .* got 'much'"),
        ({"top": "x"}, "top: .*integer.*got 'x'"),
        ({"path": 5}, "path: .*got 5"),
        ({"max_memory": "1KiB"}, "no complete explore or search trial within"),
    ],
)
def test_exports_that_are_refused(mixed, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        mixed.export(**arguments)
    assert not [*tmp_path.iterdir()]


def test_a_sweep_without_a_confirmed_model_has_none_to_save(storage, tmp_path):
    factorial = sweeps.load("factorial", storage=storage)
    with pytest.raises(InputError, match="no confirmed model, because stage confirm has no"):
        factorial.save_model(tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_report_of_a_range_outside_the_space_is_refused(tmp_path):
    result = Result(sweep([trial("explore", 0, 0.5)], {"inner_lr": [0.1, 1.0]}), "")
    with pytest.raises(InputError, match="ridge: the space has inner_lr"):
        result.report(tmp_path, within={"ridge": (0.1, 1)})


def test_several_sweeps_of_a_study_are_a_warning(tmp_path):
    for number, experiment in enumerate("ab"):
        with driven(tmp_path / experiment, "two", number, default_uri(tmp_path), "two") as driver:
            write_grid(driver)
    with pytest.warns(UserWarning, match="using two-60steps-seed1; others are") as warned:
        assert sweeps.load("two", storage=tmp_path).name == "two-60steps-seed1"
    assert warned[0].filename == __file__


def test_newer_sweeps_without_a_result_are_in_the_warning(tmp_path):
    for seed in range(2):
        with driven(tmp_path / str(seed), "two", seed, default_uri(tmp_path), "two") as driver:
            told = result("running" if seed else "complete", 0.5)
            driver.trial("explore", 0, {}, told)
    said = r"using two-60steps-seed0; .* \(without a result yet: two-60steps-seed1\)"
    with pytest.warns(UserWarning, match=said):
        assert sweeps.load("two", storage=tmp_path).name == "two-60steps-seed0"


def test_a_missing_sweep_is_refused(storage, tmp_path):
    with pytest.raises(InputError, match="no study or sweep mine"):
        sweeps.load("mine", storage=storage)
    with pytest.raises(InputError, match="no such MLflow store"):
        sweeps.load("mine", storage=tmp_path)
