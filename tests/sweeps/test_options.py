"""Arguments of `Study.run` that are refused before anything starts."""

import pytest

from memmeta.errors import InputError
from sweeps.engine import run
from sweeps.engine.options import tracking_store
from sweeps.engine.stores.store import default_uri
from tests.sweeps.tiny import STUDY

GRID = STUDY.changed(grid={"cg_steps": [1, 2]})


@pytest.mark.parametrize(
    ("study", "arguments", "said"),
    [
        (STUDY, {"stage": "grid"}, "there is no grid"),
        (STUDY, {"stage": "sometimes"}, "stage: .*'sometimes'"),
        (STUDY, {"stage": "confirm", "fresh": True}, "nothing to confirm"),
        (STUDY, {"trials": 0}, "trials: .* 1, got 0"),
        (GRID, {"trials": 4}, "the grid determines the number of trials"),
        (STUDY, {"seed": -1}, "seed: .* 0, got -1"),
        (STUDY, {"max_concurrent": 0}, "max_concurrent: .* 1, got 0"),
        (STUDY, {"cpus_per_trial": 0}, "cpus_per_trial: .* 1, got 0"),
        (STUDY, {"memory_budget": "much"}, "memory_budget: .*bytes above 0"),
        (STUDY.changed(data={"name": "cifar_fs"}), {}, "cifar_fs"),
    ],
)
def test_arguments_that_are_not_accepted_raise_one_line(tmp_path, study, arguments, said):
    with pytest.raises(InputError, match=said) as refused:
        study.run(storage=tmp_path / "runs", data_root=tmp_path, **arguments)
    assert "\n" not in refused.value.message
    assert not (tmp_path / "runs").exists()


def test_a_second_sweep_in_the_same_process_is_refused(tmp_path, data_root):
    with run._IN_USE, pytest.raises(InputError, match="another sweep is running"):
        STUDY.run(storage=tmp_path, data_root=data_root)


def test_the_store_is_the_given_one_or_mlflows_own_or_in_the_storage(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_store(str(tmp_path), None) == default_uri(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://of-mlflow")
    assert tracking_store(tmp_path, None) == "http://of-mlflow"
    assert tracking_store(tmp_path, "http://given") == "http://given"
