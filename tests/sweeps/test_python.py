"""`Study.run`, with real Ray processes."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import mlflow  # noqa: F401  # sets its log levels when it is imported
import psutil
import pytest
import ray

import sweeps
from tests import ROOT
from tests.interrupts import heed_signals
from tests.sweeps.tiny import STUDY

pytestmark = pytest.mark.slow

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGALRM)
OURS = ("TUNE_", "RAY_AIR_", "MLFLOW_")


@pytest.fixture
def places(tmp_path, data_root, monkeypatch):
    """Folders, as text. The sweep starts Ray on its own even if this machine runs a cluster."""
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return {"storage": str(tmp_path / "runs"), "data_root": str(data_root)}


def process_state():
    """What a sweep must leave as it was."""
    loggers = ("ray", "ray.tune", "optuna", "mlflow", "alembic", "mlflow.store.db.utils")
    return (
        [signal.getsignal(number) for number in SIGNALS],
        {name: value for name, value in os.environ.items() if name.startswith(OURS)},
        {name: logging.getLogger(name).level for name in loggers},
        ray.is_initialized(),
    )


@pytest.mark.thorough
def test_a_study_runs_inside_an_event_loop_and_leaves_the_process_as_it_was(places, capfd):
    before = process_state()

    async def main():
        return STUDY.run(**places, progress=False)

    result = asyncio.run(main())
    assert process_state() == before
    assert capfd.readouterr() == ("", "")
    trials = result.trials()
    assert sorted(trials["stage"]) == ["confirm", "explore", "explore", "search"]
    assert result.best.value == trials[trials["stage"] != "confirm"]["value"].max()
    assert result.best.confirmed.seeds == [1]
    loaded = sweeps.load(STUDY.name, storage=places["storage"])
    assert loaded.trials().equals(trials)


@pytest.mark.thorough
def test_a_study_uses_the_ray_of_the_program_from_any_thread_and_continues(places):
    """In a thread of its own no signal handlers can be set."""
    ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        counts = []

        def run(trials):
            result = STUDY.run(trials=trials, stage="explore", **places, progress=False)
            counts.append(len(result.trials()))

        thread = threading.Thread(target=run, args=(1,))
        thread.start()
        thread.join()
        run(2)
        assert counts == [1, 2]
        assert ray.is_initialized()
    finally:
        ray.shutdown()


STOPPED = """
from tests.sweeps.long import STUDY
try:
    STUDY.run(storage={storage!r}, data_root={data_root!r}, max_concurrent=1)
except BaseException as error:
    print("raised", type(error).__name__)
"""

LOST = """
import threading
from sweeps import FailedError
from tests.sweeps.long import STUDY

def run():
    try:
        STUDY.run(storage={storage!r}, data_root={data_root!r}, progress=False, max_concurrent=1)
    except FailedError as error:
        print("failed:", error)

thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


@contextmanager
def running(script, places):
    """A process that runs a script."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", script.format(**places)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def training(script, places):
    """A process that runs a script, from when its first trial has a checkpoint."""
    with running(script, places) as process:
        deadline = time.monotonic() + 240
        while not [*Path(places["storage"]).glob("*/checkpoints/*/trainer.pt")]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield process


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_trials_save_themselves_and_the_script_ends_as_without_a_sweep(
    places, number
):
    """SIGINT raises KeyboardInterrupt. SIGTERM ends the process without running Python."""
    with training(STOPPED, places) as process:
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert "running trials save themselves" in output
    assert errors == ""
    if number == signal.SIGTERM:
        assert (process.returncode, "raised" in output) == (-number, False)
    else:
        assert output.splitlines()[-1] == "raised KeyboardInterrupt"


@pytest.mark.faults
def test_a_lost_ray_process_ends_a_sweep_in_a_thread(places):
    with training(LOST, places) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        (raylet,) = [child for child in children if child.name() == "raylet"]
        raylet.kill()
        output, errors = process.communicate(timeout=60)
    assert output.startswith("failed: this machine: ")
    assert "no longer answers" in output
    assert errors == ""


STARTED_AGAIN = """
import ray
from tests.sweeps.tiny import STUDY
for attempt in "first", "second":
    print(attempt, flush=True)
    try:
        STUDY.run(storage={storage!r}, data_root={data_root!r}, progress=False, trials=1)
        print("finished", flush=True)
    except KeyboardInterrupt:
        print("interrupted", ray.is_initialized(), flush=True)
"""


@pytest.mark.faults
def test_after_an_interrupt_while_ray_starts_the_same_process_can_run_the_sweep(places):
    with running(STARTED_AGAIN, places) as process:
        assert process.stdout.readline() == "first\n"
        while not psutil.Process(process.pid).children():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=240)
    assert output.split("\n") == ["interrupted False", "second", "finished", ""], errors
