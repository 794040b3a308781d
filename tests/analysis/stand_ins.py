"""Sweeps without training: simulated results go through the real ledger and tracker."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig
from sweeps.engine.ledger.entry import Entry
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.study import Study
from sweeps.engine.study.outcome import Stage, Status
from sweeps.engine.tracking.tracker import Tracker

TRAINING = TrainingConfig(iterations=60, val_tasks=50)
INTERVAL = 0.012345678901234567
MEASURED = {
    "peak_memory_bytes": 81_998_337,
    "predicted_memory_bytes": 81_998_339,
    "reserved_memory_bytes": 2**30 + 1,
    "seconds_per_step": 0.1 + 0.2,
    "seconds": 100 / 3,
}
FACTS = {
    "commit": "0f3c-dirty",
    "hardware": "CPU, torch 2",
    "threads": 2,
    "gpus": 0.25,
    "data_digest": "9e1d",
}
UNMEASURED = {"peak_memory_bytes": None, "seconds_per_step": None}
LOST = "Traceback (most recent call last):\nZeroDivisionError"


def study(name: str) -> Study:
    return Study(name=name, data=DataConfig(), training=TRAINING, grid={"inner_steps": [1, 5]})


def run_config(seed: int = 0, **learner: Any) -> RunConfig:
    learner_config = LearnerConfig(**learner)
    return RunConfig(data=DataConfig(), learner=learner_config, training=TRAINING, seed=seed)


def result(status: Status, *accuracies: float, **facts: Any) -> dict[str, Any]:
    """A result as the trainable reports it, after validations with these accuracies."""
    reports: list[dict[str, Any]] = [
        {
            "step": 30 * number,
            "time": float(number),
            "metrics": {"val_accuracy": value, "val_interval": INTERVAL, "query_loss": 1.0},
        }
        for number, value in enumerate(accuracies, 1)
    ]
    going_well = reports and status in ("running", "complete", "pruned")
    return {
        "status": status,
        "step": 30 * len(reports),
        "metrics": dict(reports[-1]["metrics"]) if going_well else {},
        "reports": reports,
        **MEASURED,
        **FACTS,
        **facts,
    }


def confirmed(val: float, test: float) -> dict[str, Any]:
    """The result of a trial of stage confirm."""
    final = result("complete", val)
    final["metrics"] |= {"test_accuracy": test, "test_interval": INTERVAL}
    return final


class Driver:
    """Runs simulated trials one after another, as a sweep does."""

    def __init__(self, ledger: Ledger, tracker: Tracker) -> None:
        self._ledger = ledger
        self._tracker = tracker

    def trial(
        self,
        stage: Stage,
        index: int,
        params: dict[str, Any],
        *results: dict[str, Any],
        seed: int = 0,
    ) -> None:
        """Start a trial and report these results."""
        ticket = self._ledger.begin(stage, index, params, seed)
        self._tell(self._ledger.entry(ticket.slot))
        for reported in results:
            self._tell(self._ledger.report(ticket, reported))

    def _tell(self, entry: Entry) -> None:
        self._tracker.send(entry)


@contextmanager
def driven(folder: Path, name: str, seed: int, uri: str, experiment: str) -> Iterator[Driver]:
    """A sweep that starts, or continues from its folder."""
    folder.mkdir(exist_ok=True)
    ledger = Ledger(study(name), seed, folder)
    tracker = Tracker(ledger, study(name).sweep_name(seed), uri, experiment, folder)
    yield Driver(ledger, tracker)
    assert tracker.close(ledger.entries(), finished=True, summary={}) is None


GOOD = {"inner_lr": 0.1 / 3, "inner_steps": 1}
BEST = {"inner_lr": 0.1 / 3, "inner_steps": 2}


def begin_mixed(driver: Driver) -> None:
    """Trials of every stage and status; explore 4 and 5 are interrupted when the driver ends.

    The best of explore and search is neither the first nor the last. All candidates are worse than
    the trials that were pruned, had other seeds or are cells of the grid.
    """
    driver.trial("explore", 0, GOOD, result("running", 0.5), result("complete", 0.5, 0.6))
    driver.trial("explore", 1, BEST, result("running", 0.1), result("complete", 0.1, 2 / 3))
    diverged = result("diverged", 0.9, message="loss is nan")
    driver.trial("explore", 2, {"inner_lr": 3.0}, result("running", 0.9), diverged)
    too_big = result("out_of_memory", message="45 GiB", **UNMEASURED)
    driver.trial("explore", 3, {"task_batch": 32}, too_big)
    driver.trial("explore", 4, {"outer_lr": 1.2345e-4}, result("running", 0.7))
    driver.trial("explore", 5, {"outer_lr": 9e-3})
    driver.trial("explore", 6, {"cg_steps": 3}, result("failed", message=LOST, **UNMEASURED))
    driver.trial("explore", 7, {"ridge": 0.1}, result("failed", message=LOST, **UNMEASURED))
    driver.trial("search", 0, {"inner_steps": 4}, result("complete", 0.5, 0.64))
    driver.trial("search", 1, {"inner_steps": 8}, result("running", 0.8), result("pruned", 0.8))
    driver.trial("confirm", 0, BEST, confirmed(0.75, 0.5), seed=1)
    driver.trial("confirm", 1, BEST, confirmed(0.8125, 0.5625), seed=2)
    driver.trial("confirm", 2, BEST, result("diverged", message="loss is inf"), seed=3)
    driver.trial("confirm", 3, {"inner_steps": 4}, confirmed(0.7, 0.6), seed=1)
    write_grid(driver)


def continue_mixed(driver: Driver) -> None:
    """Run one of the failed trials again."""
    driver.trial("explore", 7, {"ridge": 0.1}, result("running", 0.3))


def write_diverged(driver: Driver) -> None:
    driver.trial("explore", 0, {}, result("diverged", message="loss is nan"), seed=1)


def write_single(driver: Driver) -> None:
    driver.trial("explore", 0, {}, result("complete", 0.25, peak_memory_bytes=None))


def write_grid(driver: Driver) -> None:
    for index, accuracy in enumerate((0.85, 0.95)):
        cell = {"inner_steps": (1, 5)[index]}
        driver.trial("grid", index, cell, result("complete", accuracy))
