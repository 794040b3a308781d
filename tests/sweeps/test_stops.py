"""Sweeps that are asked to stop, or that lose Ray or their storage."""

import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from memmeta import checkpoint
from sweeps.engine.stores.store import default_uri
from tests import ROOT
from tests.sweeps import long
from tests.sweeps.conftest import Sweep

pytestmark = [pytest.mark.slow, pytest.mark.faults]

LONG = Path(long.__file__)


@pytest.fixture
def sweep(sweep):
    sweep.environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return sweep


def wait_for(condition, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def checkpoints(sweep: Sweep) -> list[Path]:
    return list(sweep.storage.glob("*/checkpoints/*/trainer.pt"))


def steps_done(sweep: Sweep) -> list[int]:
    return [checkpoint.load(path).state["iteration"] for path in checkpoints(sweep)]


def statuses(sweep: Sweep, study: str) -> list[str]:
    client = MlflowClient(default_uri(sweep.storage))
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    return [run.info.status for run in client.search_runs([experiment.experiment_id])]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_after_a_signal_trials_save_themselves_and_the_sweep_stops_cleanly(sweep, number):
    process = sweep.start("--max-concurrent", "1", script=LONG)
    wait_for(lambda: checkpoints(sweep))
    begun = time.monotonic()
    if number == signal.SIGHUP:
        os.killpg(process.pid, number)  # like a closed terminal
    else:
        process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert time.monotonic() - begun < 30
    assert "Traceback" not in output
    assert "of 4 done; run the sweep again to continue" in output
    assert [step % long.BETWEEN_VALIDATIONS > 0 for step in steps_done(sweep)] == [True]
    assert set(statuses(sweep, "long")) == {"KILLED"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_start_of_ray_is_reported_in_one_line(sweep, number):
    process = sweep.start(script=LONG)
    assert "0 of 4 done" in process.stdout.readline()
    driver = psutil.Process(process.pid)
    wait_for(lambda: driver.children())
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output.strip()) == (128 + number, f"stopped by {number.name}")


def test_ignored_signals_stay_ignored(sweep):
    process = sweep.start("--trials", "1", "--stage", "explore", preexec=ignore_hang_ups)
    assert "0 of 1 done" in process.stdout.readline()
    os.killpg(process.pid, signal.SIGHUP)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output


def ignore_hang_ups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_lost_ray_process_is_reported_in_one_line_within_seconds(sweep, name):
    process = sweep.start(script=LONG)
    wait_for(lambda: checkpoints(sweep))
    children = psutil.Process(process.pid).children(recursive=True)
    (part,) = [child for child in children if child.name() == name]
    begun = time.monotonic()
    part.kill()
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - begun < 30
    assert process.returncode == 1, output
    assert "no longer answers" in output.splitlines()[-1]
    assert "run the sweep again to continue" in output.splitlines()[-1]
    assert len(output.splitlines()) == 2, output
    # RUNNING if Ray did not let the driver exit; the next start ends these runs.
    assert set(statuses(sweep, "long")) <= {"KILLED", "RUNNING"}


def test_a_sweep_waits_for_lost_storage_and_writes_nothing_in_its_place(sweep):
    options = ("--iterations", "200", "--trials", "2", "--stage", "explore")
    process = sweep.start(*options, script=LONG)
    wait_for(lambda: checkpoints(sweep))
    away = sweep.storage.with_name("away")
    (folder,) = sweep.storage.glob("*/")
    sweep.storage.rename(away)
    for put_in_its_place in (nothing, an_empty_folder, another_sweeps_folder):
        put_in_its_place(folder)
        before = [*sweep.storage.rglob("*")]
        time.sleep(5)
        assert [*sweep.storage.rglob("*")] == before
        assert process.poll() is None
    shutil.rmtree(sweep.storage)
    away.rename(sweep.storage)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert output.count("the storage is unavailable; waiting for it") == 1
    assert "Traceback" not in output
    assert steps_done(sweep) == [200, 200]
    assert statuses(sweep, "long") == ["FINISHED"] * 3


def nothing(folder):
    assert not folder.exists()


def an_empty_folder(folder):
    folder.mkdir(parents=True)


def another_sweeps_folder(folder):
    (folder / "checkpoints").mkdir()
    (folder / "driver").write_text("somebody else's")
    (folder / "journal.log").write_text("")


def test_a_sweep_can_be_stopped_while_it_waits_for_its_storage(sweep):
    process = sweep.start(script=LONG)
    wait_for(lambda: checkpoints(sweep))
    sweep.storage.rename(sweep.storage.with_name("away"))
    for line in process.stdout:
        if "waiting for it" in line:
            break
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output.strip()) == (143, "stopped by SIGTERM")
    assert not sweep.storage.exists()


def test_a_temporary_folder_with_a_path_too_long_for_sockets_is_not_used(sweep, tmp_path):
    """Job schedulers create such folders."""
    folder = tmp_path / ("t" * 100)
    folder.mkdir()
    sweep.environment["TMPDIR"] = str(folder)
    code, output = sweep.run("--trials", "1", "--stage", "explore")
    assert code == 0, output


def test_a_timeout_during_the_start_of_ray_is_reported_in_one_line(sweep):
    sweep.environment["RAY_gcs_server_port_wait_time_s"] = "0"
    for _ in range(3):  # on a busy machine Ray may have started before it looks at the time
        code, output = sweep.run("--fresh")
        if code:
            break
    assert code == 1
    assert "no Ray cluster to use" in output.splitlines()[-1]
    assert "Traceback" not in output
