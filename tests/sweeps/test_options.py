"""Arguments of `Study.run` that are refused before anything starts."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from memmeta.errors import FailedError, InputError
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
        (STUDY, {"experiment": "e" * 501}, "experiment: .*500 characters"),
    ],
)
def test_arguments_that_are_not_accepted_raise_one_line(tmp_path, study, arguments, said):
    with pytest.raises(InputError, match=said) as refused:
        study.run(storage=tmp_path / "runs", data_root=tmp_path, **arguments)
    assert "\n" not in refused.value.message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:////proc/no/mlflow.db",
        "sqlite:///{folder}/text.db",
        "sqlite:///{folder}",
        "{folder}/mlruns",
        "http://localhost:1",
        "nonsense://x",
    ],
)
def test_a_store_that_cannot_be_used_is_refused_before_anything_runs(tmp_path, data_root, uri):
    (tmp_path / "text.db").write_text("no database")
    uri = uri.format(folder=tmp_path)
    with pytest.raises(InputError) as refused:
        STUDY.run(storage=tmp_path / "runs", data_root=data_root, tracking_uri=uri)
    assert refused.value.message.startswith((uri, str(tmp_path)))
    assert "\n" not in refused.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["text.db"]


def test_a_store_that_is_locked_is_no_reason_not_to_start(
    tmp_path, data_root, empty_store, monkeypatch
):
    """Its trials are sent later."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setattr(run, "_sweep", lambda *_: run.Ended(False, None))
    connection = sqlite3.connect(tmp_path / "mlflow.db", isolation_level="EXCLUSIVE")
    with closing(connection):
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(FailedError, match="run the study again"):
            STUDY.run(storage=tmp_path, data_root=data_root)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_record_in_memory_is_refused(tmp_path, data_root, url):
    with pytest.raises(InputError, match="in memory, which would be lost"):
        STUDY.run(storage=tmp_path, data_root=data_root, ledger=url)


def test_a_second_sweep_in_the_same_process_is_refused(tmp_path, data_root):
    with run._IN_USE, pytest.raises(InputError, match="another sweep is running"):
        STUDY.run(storage=tmp_path, data_root=data_root)


def test_the_store_is_the_given_one_or_mlflows_own_or_in_the_storage(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_store(str(tmp_path), None) == default_uri(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://of-mlflow")
    assert tracking_store(tmp_path, None) == "http://of-mlflow"
    assert tracking_store(tmp_path, "http://given") == "http://given"
