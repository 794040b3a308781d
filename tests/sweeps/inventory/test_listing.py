import os
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest
from mlflow import MlflowClient

from memmeta.errors import InputError
from sweeps.engine.inventory.listing import find_sweep, stored_sweeps
from sweeps.engine.ledger.opening import sweep_lock
from sweeps.engine.stores.store import default_uri
from sweeps.engine.study.outcome import TAGS

SINGLE, FACTORIAL = "single-60steps-seed0", "factorial-60steps-seed0"


def listed(storage, uri=None):
    return {sweep.name: sweep for sweep in stored_sweeps(storage, uri or default_uri(storage))}


def test_finished_sweeps(storage):
    sweeps = listed(storage)
    assert list(sweeps) == [FACTORIAL, SINGLE]
    single = sweeps[SINGLE]
    assert (single.state, single.done, single.folder) == ("finished", 1, storage / SINGLE)
    assert sweeps[FACTORIAL].done == 2
    assert single.size == sum(path.stat().st_size for path in (storage / SINGLE).iterdir())


def test_a_sweep_is_running_while_its_lock_is_held(storage):
    with sweep_lock(storage / SINGLE):
        assert listed(storage)[SINGLE].state == "running"
    assert listed(storage)[SINGLE].state == "finished"


def test_a_killed_sweep_is_stopped(storage):
    sweep = listed(storage)[SINGLE]
    MlflowClient(default_uri(storage)).update_run(sweep.run.info.run_id, status="RUNNING")
    assert listed(storage)[SINGLE].state == "stopped"


def test_listing_does_not_change_when_a_sweep_was_last_active(storage):
    with sweep_lock(storage / SINGLE):
        pass
    before = listed(storage)[SINGLE].last_active
    for path in (storage / SINGLE).iterdir():
        os.utime(path, (0, 0))
    assert listed(storage)[SINGLE].last_active <= before <= datetime.now(UTC)


def test_without_the_store_only_the_folders_are_known(storage):
    (storage / "mlflow.db").unlink()
    sweep = listed(storage)[SINGLE]
    assert (sweep.state, sweep.done, sweep.planned, sweep.run) == ("stopped", 0, None, None)
    assert not (storage / "mlflow.db").exists()


def test_without_the_folder_only_the_runs_are_known(storage):
    shutil.rmtree(storage / SINGLE)
    sweep = listed(storage)[SINGLE]
    assert (sweep.state, sweep.done, sweep.size, sweep.folder) == ("finished", 1, 0, None)


def test_other_folders_are_no_sweeps(storage, tmp_path):
    (storage / "artifacts").mkdir(exist_ok=True)
    (storage / "notes").mkdir()
    assert list(listed(storage)) == [FACTORIAL, SINGLE]
    assert listed(tmp_path / "nowhere", default_uri(tmp_path / "nowhere")) == {}


def test_a_copied_folder_does_not_get_the_runs_of_the_original(storage):
    shutil.copytree(storage / SINGLE, storage / "copy-60steps-seed0")
    assert listed(storage)["copy-60steps-seed0"].run is None
    assert listed(storage)[SINGLE].run is not None


def test_runs_of_another_storage_are_another_sweep(storage, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(storage / SINGLE, other / SINGLE)
    (other / SINGLE / "ledger.id").write_text("0" * 32)
    both = [sweep for sweep in stored_sweeps(other, default_uri(storage)) if sweep.name == SINGLE]
    assert [(sweep.folder, bool(sweep.run)) for sweep in both] == [
        (other / SINGLE, False),
        (None, True),
    ]
    assert find_sweep(both, SINGLE, "other").folder == other / SINGLE


def test_runs_of_older_versions_belong_by_name_in_the_own_store(storage, tmp_path):
    client = MlflowClient(default_uri(storage))
    client.delete_tag(listed(storage)[SINGLE].run.info.run_id, TAGS.identity)
    assert listed(storage)[SINGLE].run is not None
    other = tmp_path / "other"
    shutil.copytree(storage / SINGLE, other / SINGLE)
    sweeps = stored_sweeps(other, default_uri(storage))
    assert find_sweep(sweeps, SINGLE, "other").run is None


def test_the_number_of_planned_trials(storage):
    sweep = listed(storage)[SINGLE]
    assert sweep.planned is None  # the stand-in does not know it
    MlflowClient(default_uri(storage)).set_tag(sweep.run.info.run_id, TAGS.planned, "16")
    assert listed(storage)[SINGLE].planned == 16


def test_a_misspelled_sweep(storage):
    with pytest.raises(InputError, match=f"no such sweep in runs .did you mean {SINGLE}"):
        find_sweep(stored_sweeps(storage, default_uri(storage)), "single-60step-seed0", "runs")


def test_the_only_sweep_of_a_study(storage):
    def find():
        return find_sweep(stored_sweeps(storage, default_uri(storage)), "single", "runs")

    assert find().name == SINGLE
    other = "single-90tasks-seed3-v2"
    shutil.copytree(storage / SINGLE, storage / other)
    with pytest.raises(InputError, match=f"single: a study with several sweeps.*{SINGLE}, {other}"):
        find()
    shutil.rmtree(storage / SINGLE)
    (storage / "mlflow.db").unlink()
    assert find().name == other


def test_several_sweeps_without_a_folder_are_told_apart_by_the_id_of_the_run(storage):
    shutil.rmtree(storage / SINGLE)
    (sweep,) = (s for s in stored_sweeps(storage, default_uri(storage)) if s.name == SINGLE)
    twice = [sweep, sweep]
    with pytest.raises(InputError, match=f"several sweeps .*{sweep.run.info.run_id}"):
        find_sweep(twice, SINGLE, "runs")
    assert find_sweep([sweep], sweep.run.info.run_id, "runs") is sweep


def test_a_folder_with_checkpoints_of_something_else_is_no_sweep(tmp_path):
    (tmp_path / "runs" / "thesis" / "checkpoints").mkdir(parents=True)
    assert stored_sweeps(tmp_path / "runs", default_uri(tmp_path / "runs")) == []


def test_a_database_of_another_program_is_refused_and_stays_as_it_is(tmp_path):
    with closing(sqlite3.connect(tmp_path / "app.db")) as database:
        database.execute("CREATE TABLE mine (x)")
        database.commit()
    before = (tmp_path / "app.db").read_bytes()
    with pytest.raises(InputError, match="latest_metrics"):
        stored_sweeps(tmp_path, f"sqlite:///{tmp_path}/app.db")
    assert (tmp_path / "app.db").read_bytes() == before
