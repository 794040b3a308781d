"""Whole sweeps on a real Ray cluster, a real journal and a real MLflow store."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from mlflow import MlflowClient

import memmeta as mm
import sweeps
from memmeta.config import RunConfig
from memmeta.data import load
from memmeta.exported import read_run
from sweeps.engine.ledger.entry import Slot
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.ledger.opening import sweep_lock
from sweeps.engine.stores.store import default_uri
from sweeps.engine.study.design import sobol_point
from sweeps.engine.study.outcome import TAGS
from tests.mlflow_models import loaded
from tests.sweeps.conftest import Sweep
from tests.sweeps.tiny import STUDY

pytestmark = pytest.mark.slow

NAME = STUDY.sweep_name(seed=0)


def table(sweep: Sweep) -> dict[tuple, dict]:
    """Slot to key and result of the finished trials, without values that differ between runs."""
    finished = Ledger(STUDY, 0, sweep.storage / NAME).finished()
    return {entry.slot: (entry.run.key, timeless(entry.result)) for entry in finished}


def timeless(result: dict) -> dict:
    # The reserved memory depends on the measured size of the process.
    measured = ("seconds", "seconds_per_step", "reserved_memory_bytes")
    reports = [report | {"time": None} for report in result["reports"]]
    return result | {"reports": reports} | dict.fromkeys(measured)


def runs(sweep: Sweep, kind: str):
    client = MlflowClient(default_uri(sweep.storage))
    experiment = client.get_experiment_by_name(STUDY.name)
    return client, client.search_runs([experiment.experiment_id], f"tags.`{TAGS.kind}` = '{kind}'")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_root) -> tuple[Sweep, str]:
    folder = tmp_path_factory.mktemp("a? %2F#%20 of it's")
    sweep = Sweep(folder, folder / "nodata")
    sweep.environment["MEMMETA_CACHE"] = str(data_root / "cache")
    code, output = sweep.run()
    assert code == 0, output
    return sweep, output


def test_trials_find_the_cache_of_the_driver(finished):
    """The driver and its workers were told by the environment alone; nothing else has the data."""
    sweep, _ = finished
    assert not sweep.data_root.exists()


def test_a_sweep_prints_the_best_configs_and_further_commands(finished):
    _, output = finished
    assert "4 of 4" not in output.splitlines()[0]
    assert "validation accuracy" in output
    for command in (
        "memmeta trials tiny",
        "mlflow ui --backend-store-uri ",
        "parallel coordinates:  http://127.0.0.1:5000/#/experiments/1/runs?",
    ):
        assert command in output
    assert "WARNING" not in output
    assert "INFO" not in output


def test_mlflow_has_a_parent_run_and_a_run_for_each_trial(finished):
    sweep, _ = finished
    _, (parent,) = runs(sweep, "sweep")
    client, children = runs(sweep, "trial")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["trials"] == 4
    ledger = {entry.slot: entry for entry in Ledger(STUDY, 0, sweep.storage / NAME).finished()}
    assert [slot.stage for slot in ledger] == ["explore", "explore", "search", "confirm"]
    assert len(children) == 4
    for run in children:
        tags, metrics = run.data.tags, run.data.metrics
        entry = ledger[Slot(tags[TAGS.stage], int(tags[TAGS.index]))]
        assert (run.info.status, run.info.run_name) == ("FINISHED", entry.name)
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert (tags[TAGS.key], tags[TAGS.status]) == (entry.run.key, "complete")
        assert RunConfig.model_validate_json(tags[TAGS.config]) == entry.run
        assert run.data.params["inner_steps"] == str(entry.run.learner.inner_steps)
        assert metrics["val_accuracy"] == entry.result["metrics"]["val_accuracy"]
        for name in ("peak", "predicted", "reserved"):
            assert metrics[f"{name}_memory_mib"] * 2**20 == entry.result[f"{name}_memory_bytes"]
        assert metrics["peak_memory_mib"] == metrics["predicted_memory_mib"]
        assert metrics["reserved_memory_mib"] > metrics["peak_memory_mib"]
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        assert [point.step for point in history] == [2, 4, 6]


def test_confirmed_models_are_scored_on_a_data_set_that_is_added_later(
    finished, sweep, two_data_sets
):
    shutil.copytree(finished[0].storage, sweep.storage)
    sweep.data_root = two_data_sets
    before = table(sweep)
    code, output = sweep.run("--evaluate-on", "fc100")
    assert code == 0, output
    assert "complete trials of stage confirm to score on fc100: 1" in output
    assert "fresh seeds, test on fc100" in output
    after = table(sweep)
    slot = Slot("confirm", 0)
    (key, result), (_, old) = after.pop(slot), before.pop(slot)
    assert after == before
    fc100 = load("fc100", two_data_sets)
    run = mm.load(sweep.storage / NAME / "checkpoints" / key / "trainer.pt", device="cpu")
    expected = run.evaluate("test", data=fc100)
    assert result["metrics"] == old["metrics"] | {
        "test_accuracy_fc100": expected.value,
        "test_interval_fc100": expected.interval,
    }
    _, parents = runs(sweep, "sweep")
    assert len(parents) == 1
    trials = sweeps.load("tiny", storage=sweep.storage).trials().set_index("run_name")
    assert trials["test_value_fc100"].dropna().to_dict() == {"confirm 000": expected.value}
    assert trials["data_digest_fc100"].dropna().to_dict() == {"confirm 000": fc100.digest}
    code, output = sweep.run("--evaluate-on", "fc100")
    assert (code, "4 of 4 done" in output) == (0, True)
    assert table(sweep) == {**after, slot: (key, result)}


def test_the_best_confirmed_model_is_in_mlflow_and_can_be_exported(finished, tmp_path):
    sweep, output = finished
    said, address = output.splitlines()[-1].split()[-2:]
    assert said == "000:"
    model = loaded(default_uri(sweep.storage), address)
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 1), dtype=np.uint8)
    support, labels, query = images[:4], ["a", "b", "a", "b"], images[4:]
    predicted = model.predict(
        {"support_images": support, "support_labels": labels, "query_images": query}
    )
    out, weights = tmp_path / "best.yaml", tmp_path / "model.pt"
    words = ["export", "tiny", "--storage", sweep.storage, "--out", out, "--model", weights]
    done = subprocess.run(
        [sys.executable, "-m", "analysis", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    run = mm.load(weights)
    assert run.adapt(support, labels).predict(query) == predicted
    (confirmed,) = Ledger(STUDY, 0, sweep.storage / NAME).finished("confirm")
    assert run.config == confirmed.run
    assert read_run(out).results.confirmed.seeds == [run.config.seed]
    saved = sweeps.load("tiny", storage=sweep.storage).save_model(tmp_path / "again.pt")
    assert saved.read_bytes() == weights.read_bytes()


def test_test_tasks_are_used_only_in_confirm(finished):
    sweep, _ = finished
    for entry in Ledger(STUDY, 0, sweep.storage / NAME).finished():
        assert ("test_accuracy" in entry.result["metrics"]) == (entry.stage == "confirm")
        assert (entry.run.seed > 0) == (entry.stage == "confirm")


def test_the_same_command_again_runs_nothing(finished):
    sweep, _ = finished
    before = table(sweep)
    code, output = sweep.run()
    assert code == 0
    assert "4 of 4 done" in output
    assert table(sweep) == before
    _, children = runs(sweep, "trial")
    assert len(children) == 4


def kill_everything(process) -> None:
    """SIGKILL to the driver; its Ray processes notice and end."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for_checkpoint(sweep: Sweep) -> None:
    deadline = time.monotonic() + 120
    while not list(sweep.storage.glob("*/checkpoints/*/trainer.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.faults
def test_a_sweep_whose_driver_was_killed_ends_like_an_uninterrupted_one(finished, sweep):
    process = sweep.start()
    wait_for_checkpoint(sweep)
    kill_everything(process)
    code, output = sweep.run()
    assert code == 0, output
    ours, theirs = table(sweep), table(finished[0])
    for slot in theirs:
        assert ours[slot] == theirs[slot]
    assert ours.keys() == theirs.keys()
    _, children = runs(sweep, "trial")
    assert [run.info.status for run in children] == ["FINISHED"] * 4


@pytest.mark.faults
def test_a_bug_in_setup_is_not_treated_as_a_lost_worker(sweep, tmp_path):
    script = tmp_path / "broken.py"
    script.write_text(
        "from sweeps.engine import run\n"
        "from sweeps.engine.command_line import main\n"
        "from tests.sweeps.tiny import STUDY\n"
        "class Broken(run.MetaTrainable):\n"
        "    def setup(self, *args, **kwargs):\n"
        "        raise ValueError('a bug')\n"
        "run.MetaTrainable = Broken\n"
        "main(STUDY)\n"
    )
    sweep.environment["PYTHONPATH"] = "."
    code, output = sweep.run(script=script)
    assert code == 1
    assert output.count("ValueError: a bug") == 1
    assert "stopped by a bug in a trial" in output


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.faults
@pytest.mark.parametrize("left", [2**12, 2**16])
def test_a_full_disk_is_reported_in_one_line_and_the_sweep_can_continue(
    finished, small_disk, data_root, left
):
    sweep = Sweep(small_disk, data_root)
    other_disk = f"sqlite:///{small_disk.parent}/mlflow.db"
    ballast = small_disk / "ballast"
    free = shutil.disk_usage(small_disk).free
    ballast.write_bytes(bytes(free - left))
    code, output = sweep.run("--tracking-uri", other_disk)
    assert code == 1, output
    assert output.count("No space left on device") <= 3
    assert "run the sweep again to continue" in output.splitlines()[-1]
    assert "Traceback" not in output
    ballast.unlink()
    code, output = sweep.run("--tracking-uri", other_disk)
    assert code == 0, output
    assert table(sweep) == table(finished[0])


@pytest.mark.faults
def test_divergence_is_a_result(sweep, tmp_path):
    script = tmp_path / "diverging.py"
    script.write_text(
        "from sweeps.engine.command_line import main\n"
        "from tests.sweeps.tiny import STUDY\n"
        "learner = STUDY.learner.model_copy(update={'inner_lr': 1e30})\n"
        "main(STUDY.changed(learner=learner))\n"
    )
    sweep.environment["PYTHONPATH"] = "."
    code, output = sweep.run("--trials", "2", script=script)
    assert code == 0, output
    assert "2 trials diverged" in output
    _, children = runs(sweep, "trial")
    assert [run.data.tags[TAGS.status] for run in children] == ["diverged"] * 2


@pytest.mark.thorough
def test_trials_that_are_stopped_early_are_pruned(sweep):
    code, output = sweep.run("--stage", "search", "--asha", "--trials", "6")
    assert code == 0, output
    entries = Ledger(STUDY, 0, sweep.storage / NAME, stages=("search",)).finished()
    pruned = [entry for entry in entries if entry.status == "pruned"]
    assert len(entries) == 6
    assert 0 < len(pruned) < 6
    assert all(0 < entry.result["step"] < 6 for entry in pruned)
    assert "stopped early" in output
    _, children = runs(sweep, "trial")
    statuses = [run.data.tags[TAGS.status] for run in children]
    assert statuses.count("pruned") == len(pruned)
    assert {run.info.status for run in children} == {"FINISHED"}


@pytest.mark.faults
def test_a_bug_stops_the_sweep_and_prints_one_traceback(sweep):
    checkpoints = sweep.storage / NAME / "checkpoints"
    checkpoints.mkdir(parents=True)
    begun = Ledger(STUDY, 0, sweep.storage / NAME).begin("explore", 0, sobol_point(STUDY, 0, 0), 0)
    # A file where a folder should be.
    (checkpoints / begun.run.key).write_text("")
    code, output = sweep.run()
    assert code == 1
    assert output.count("Traceback") == 1
    assert "NotADirectoryError" in output or "FileExistsError" in output
    shutil.rmtree(checkpoints)
    code, output = sweep.run("--trials", "2")
    assert code == 0, output


@pytest.mark.faults
def test_a_memory_limit_that_no_trial_meets_is_reported_at_the_end(sweep):
    """In a terminal that has ASCII alone."""
    sweep.environment["PYTHONIOENCODING"] = "ascii"
    options = "--trials", "2", "--stage", "explore", "--memory-limit", "200"
    code, output = sweep.run(*options)
    assert code == 0, output
    assert "0 of 2 complete trials stay within the memory limit, 200 B" in output
    assert "no best config" in output
    assert " +- " in output


def test_a_second_driver_is_refused(sweep):
    folder = sweep.storage / NAME
    folder.mkdir(parents=True)
    with sweep_lock(folder):
        code, output = sweep.run()
    assert code == 2
    assert "already running" in output


@pytest.mark.faults
def test_a_store_that_cannot_be_opened_is_reported_in_one_line_with_exit_code_2(sweep):
    code, output = sweep.run("--tracking-uri", "sqlite:////proc/no/mlflow.db")
    assert code == 2, output
    assert "cannot be opened as an MLflow store" in output
    assert "Traceback" not in output


@pytest.mark.faults
def test_refused_trials_run_once_there_is_enough_memory(sweep):
    options = "--trials", "2", "--stage", "explore"
    code, output = sweep.run(*options, "--memory-budget", "1MiB")
    assert code == 0, output
    assert "2 trials ran out of memory or would have" in output
    code, output = sweep.run(*options)
    assert code == 0, output
    assert "out of memory" not in output
    _, children = runs(sweep, "trial")
    assert [run.data.tags[TAGS.status] for run in children] == ["complete"] * 2
    assert all(run.data.tags[TAGS.message] == "" for run in children)


def test_dry_run_prints_a_plan_and_runs_nothing(sweep):
    code, output = sweep.run("--dry-run")
    assert code == 0, output
    for part in ("4 trials on glyphs", "outer_lr", "predicted:"):
        assert part in output
    assert not sweep.storage.exists()
