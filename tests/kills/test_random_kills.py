"""Sweeps that are killed at random moments end with the same results as uninterrupted ones.

Run them with `make test-kills`, which takes about six minutes. The environment variables KILLS and
SEED set the number of kills and the random seed.
"""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import optuna
import psutil
import pytest
from mlflow import MlflowClient

from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.stores.store import default_uri
from sweeps.engine.study.outcome import TAGS
from tests.kills.study import STUDY
from tests.sweeps.conftest import Sweep
from tests.sweeps.test_sweep import timeless

pytestmark = pytest.mark.kills
optuna.logging.set_verbosity(optuna.logging.WARNING)

SCRIPT = Path(__file__).with_name("study.py")
NAME = STUDY.sweep_name(seed=0)
KILLS = int(os.environ.get("KILLS", "5"))  # per sweep; by default once in every way
SEED = int(os.environ.get("SEED", "0"))


def table(sweep: Sweep) -> dict:
    """All finished trials in the ledger, without times."""
    finished = Ledger(STUDY, 0, sweep.storage / NAME).finished()
    return {entry.slot: (entry.run, timeless(entry.result)) for entry in finished}


def mlflow_table(sweep: Sweep) -> dict:
    """All trials in MLflow, without times. Fails if a trial is there twice."""
    client = MlflowClient(default_uri(sweep.storage))
    experiment = client.get_experiment_by_name(STUDY.name)
    trials = client.search_runs(
        [experiment.experiment_id], f"tags.`{TAGS.kind}` = 'trial'", max_results=1000
    )
    found = {}
    for run in trials:
        slot = run.data.tags[TAGS.stage], int(run.data.tags[TAGS.index])
        assert slot not in found
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        points = [(point.step, point.value) for point in history]
        found[slot] = run.info.status, run.data.tags[TAGS.status], points, run.data.params
    return found


def trial_workers(driver: psutil.Process) -> list[psutil.Process]:
    return [p for p in driver.children(recursive=True) if "ray::_Inner" in " ".join(_words(p))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def kill(processes: list[psutil.Process]) -> bool:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    return bool(processes)


def kill_driver(driver: psutil.Process) -> bool:
    """Its Ray processes notice by themselves."""
    return kill([driver])


def kill_a_worker(driver: psutil.Process) -> bool:
    return kill(trial_workers(driver)[:1])


def kill_the_cluster(driver: psutil.Process) -> bool:
    return kill(driver.children(recursive=True))


def kill_everything(driver: psutil.Process) -> bool:
    return kill([*driver.children(recursive=True), driver])


def interrupt(driver: psutil.Process) -> bool:
    driver.send_signal(signal.SIGINT)
    return True


WAYS = [kill_a_worker, kill_driver, kill_the_cluster, kill_everything, interrupt]


def live_through(process: subprocess.Popen, chance: random.Random, kills: list[str]) -> bool:
    """Kill at random moments until the driver has ended. Returns whether the sweep has finished."""
    driver = psutil.Process(process.pid)
    killed = False
    while len(kills) < KILLS and not killed and process.poll() is None:
        # A driver needs some seconds until its first trial.
        deadline = time.monotonic() + chance.uniform(3, 14)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        way = WAYS[len(kills) % len(WAYS)]
        if process.poll() is None and way(driver):
            kills.append(way.__name__)
            killed = way is not kill_a_worker  # the driver survives that
    output, _ = process.communicate(timeout=180)
    assert "Traceback" not in output or killed, output
    return process.returncode == 0


@pytest.mark.parametrize(
    "options",
    [
        # Two at a time, in a stage whose trials do not depend on the order of results.
        ("--stage", "explore", "--trials", "10"),
        # All stages, with a sampler that depends on every earlier result.
        ("--trials", "12", "--max-concurrent", "1"),
    ],
)
def test_a_sweep_killed_at_random_moments_ends_like_an_uninterrupted_one(
    options, tmp_path, data_root
):
    whole = Sweep(tmp_path / "whole", data_root)
    code, output = whole.run(*options, script=SCRIPT)
    assert code == 0, output

    killed = Sweep(tmp_path / "killed", data_root)
    chance, kills = random.Random(SEED), []
    while len(kills) < KILLS:
        finished = live_through(killed.start(*options, script=SCRIPT), chance, kills)
        if finished:
            assert_same(killed, whole)
            # It finished before enough kills, so start another one.
            killed = Sweep(tmp_path / f"killed-{len(kills)}", data_root)
    code, output = killed.run(*options, script=SCRIPT)
    assert code == 0, output
    assert_same(killed, whole)
    print(f"\nkilled {len(kills)} times: {', '.join(kills)}")


def assert_same(sweep: Sweep, other: Sweep) -> None:
    assert table(sweep) == table(other)
    assert mlflow_table(sweep) == mlflow_table(other)
