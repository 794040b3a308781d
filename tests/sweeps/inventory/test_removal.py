"""Removing a sweep, completely and in parts."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from memmeta.errors import FailedError, InputError
from sweeps.engine.inventory import removal
from sweeps.engine.inventory.listing import find_sweep, stored_sweeps
from sweeps.engine.inventory.removal import remove
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.ledger.opening import sweep_lock
from sweeps.engine.stores.store import default_uri
from tests.analysis.stand_ins import driven, study, write_single
from tests.mlflow_server import MlflowServer

NAME, OTHER = "single-60steps-seed0", "factorial-60steps-seed0"


def find(storage, uri=None):
    return find_sweep(stored_sweeps(storage, uri or default_uri(storage)), NAME, "runs")


def run(storage, uri=None, ledger=None):
    uri = uri or default_uri(storage)
    return list(remove(find(storage, uri), uri, ledger))


def all_runs(uri):
    client = MlflowClient(uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(ids, run_view_type=ViewType.ALL)


def test_a_sweep_leaves_nothing_behind_and_others_stay(storage):
    uri = default_uri(storage)
    client, sweep = MlflowClient(uri), find(storage)
    client.log_text(sweep.run.info.run_id, "a report", "report/report.html")
    client.log_text(sweep.trials[0].info.run_id, "a file", "note.txt")
    view = f'{{"searchFilter": "{sweep.run.info.run_id}"}}'
    client.set_experiment_tag(sweep.run.info.experiment_id, "mlflow.sharedViewState.a", view)
    client.set_experiment_tag(sweep.run.info.experiment_id, "mlflow.sharedViewState.b", "other")
    steps = run(storage)
    assert len(steps) == 2
    assert "removed its run and 1 trial" in steps[0]
    assert str(storage / NAME) in steps[1]
    assert not (storage / NAME).exists()
    assert {run.data.tags["memmeta.sweep"] for run in all_runs(uri)} == {OTHER}
    assert [path for path in storage.rglob("*") if path.name in ("report.html", "note.txt")] == []
    tags = client.get_experiment_by_name("shared").tags
    assert "mlflow.sharedViewState.a" not in tags
    assert tags["mlflow.sharedViewState.b"] == "other"
    with closing(sqlite3.connect(storage / "mlflow.db")) as database:
        for table in ("metrics", "params", "tags", "latest_metrics"):
            query = (
                f"SELECT COUNT(*) FROM {table} WHERE run_uuid NOT IN (SELECT run_uuid FROM runs)"
            )
            assert database.execute(query).fetchone() == (0,)
    assert [sweep.name for sweep in stored_sweeps(storage, uri)] == [OTHER]


def test_the_runs_in_all_experiments_are_removed(storage):
    uri = default_uri(storage)
    with driven(storage / NAME, "single", 0, uri, "another experiment"):
        pass
    assert len(find(storage).runs) == 2
    run(storage)
    assert {run.data.tags["memmeta.sweep"] for run in all_runs(uri)} == {OTHER}


def test_models_of_a_sweep_are_removed(storage):
    uri = default_uri(storage)
    client, sweep = MlflowClient(uri), find(storage)
    experiment = sweep.run.info.experiment_id
    models = [
        client.create_logged_model(experiment, source_run_id=run_id, name=name)
        for run_id, name in ((sweep.run.info.run_id, "own"), (None, "foreign"))
    ]
    run(storage)
    left = client.search_logged_models([experiment])
    assert [model.model_id for model in left] == [models[1].model_id]


def test_what_users_deleted_of_other_sweeps_can_still_be_restored(storage):
    client = MlflowClient(default_uri(storage))
    other = client.create_experiment("deleted by its user")
    kept = client.create_run(other).info.run_id
    client.delete_experiment(other)
    run(storage)
    client.restore_experiment(other)
    assert client.get_run(kept).info.lifecycle_stage == "active"


def test_a_running_sweep_is_refused(storage):
    with sweep_lock(storage / NAME), pytest.raises(InputError, match="already running"):
        run(storage)
    assert find(storage).run is not None
    MlflowClient(default_uri(storage)).update_run(find(storage).run.info.run_id, "RUNNING")
    shutil.rmtree(storage / NAME)
    with pytest.raises(InputError, match="running according to MLflow"):
        run(storage)


def test_a_removal_that_failed_half_way_can_be_repeated(storage, monkeypatch):
    def fail(folder):
        raise FailedError(f"{folder}: cannot be removed")

    monkeypatch.setattr(removal, "_empty", fail)
    with pytest.raises(FailedError):
        run(storage)
    assert find(storage).run is None
    monkeypatch.undo()
    steps = run(storage)
    assert "no runs in" in steps[0]
    assert not (storage / NAME).exists()


def test_a_removal_that_was_killed_among_the_runs_can_be_repeated(storage, monkeypatch):
    deleted = []

    def killed(location, *_):
        deleted.append(location)
        if len(deleted) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(removal, "_remove_files", killed)
    with pytest.raises(KeyboardInterrupt):
        run(storage)
    monkeypatch.undo()
    assert find(storage).trials == []
    assert "removed its run and 0 trials" in run(storage)[0]
    assert {run.data.tags["memmeta.sweep"] for run in all_runs(default_uri(storage))} == {OTHER}


def test_after_the_folder_was_removed_by_hand_the_runs_are_removed(storage):
    shutil.rmtree(storage / NAME)
    assert len(run(storage)) == 1
    assert {run.data.tags["memmeta.sweep"] for run in all_runs(default_uri(storage))} == {OTHER}


def test_the_record_in_a_database_is_removed(storage, tmp_path):
    url = f"sqlite:///{tmp_path}/ledgers.db"
    for seed in (1, 2):
        folder = storage / f"single-60steps-seed{seed}"
        folder.mkdir()
        ledger = Ledger(study("single"), seed, folder, url)
        ledger.begin("explore", 0, {}, seed)
    uri = default_uri(storage)
    sweep = find_sweep(stored_sweeps(storage, uri), "single-60steps-seed1", "runs")
    with pytest.raises(InputError, match="give its address with --ledger"):
        list(remove(sweep, uri, None))
    with pytest.raises(InputError, match="no such database"):
        list(remove(sweep, uri, f"sqlite:///{tmp_path}/other.db"))
    steps = list(remove(sweep, uri, url))
    assert "removed 1 stage" in steps[1]
    assert not (storage / "single-60steps-seed1").exists()
    left = Ledger(study("single"), 2, storage / "single-60steps-seed2", url)
    assert len(left.entries("explore")) == 1


@pytest.mark.thorough
def test_on_a_server_runs_are_deleted_and_can_be_restored(tmp_path):
    storage = tmp_path / "runs"
    storage.mkdir()
    with MlflowServer(tmp_path) as server:
        uri = server.address
        with driven(storage / NAME, "single", 0, uri, "shared") as driver:
            write_single(driver)
        client, sweep = MlflowClient(uri), find(storage, uri)
        assert "can be restored" in run(storage, uri)[0]
        assert stored_sweeps(storage, uri) == []
        client.restore_run(sweep.run.info.run_id)


def test_a_link_to_a_sweep_of_another_storage_is_refused(storage, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / NAME).symlink_to(storage / NAME)
    sweep = find(tmp_path / "other")
    before = sorted((storage / NAME).rglob("*"))
    with pytest.raises(InputError, match="a symbolic link, so the sweep is in another storage"):
        list(remove(sweep, default_uri(tmp_path / "other"), None))
    assert sorted((storage / NAME).rglob("*")) == before


def test_a_store_that_names_a_folder_of_the_user_does_not_remove_it(storage, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text").write_text("years")
    with closing(sqlite3.connect(storage / "mlflow.db")) as database:
        database.execute("UPDATE runs SET artifact_uri = ?", [f"file://{tmp_path}/thesis"])
        database.commit()
    with pytest.raises(InputError, match="thesis as the files of"):
        run(storage)
    assert (tmp_path / "thesis" / "text").read_text() == "years"
