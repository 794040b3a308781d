"""Sweeps without training: what Tune would tell the tracker."""

from types import SimpleNamespace
from typing import Any

from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig
from sweeps.engine.tracking import Tracker

TRAINING = TrainingConfig(iterations=60, val_tasks=50)
MEASURED = {"peak_memory_bytes": 81_998_337, "seconds_per_step": 0.1 + 0.2}
FACTS = {"commit": "0f3c-dirty", "hardware": "CPU, torch 2", "threads": 2, "data_digest": "9e1d"}


def run_config(**learner: Any) -> RunConfig:
    return RunConfig(data=DataConfig(), learner=LearnerConfig(**learner), training=TRAINING)


class FakeTune:
    """Calls a tracker as Tune calls its callbacks, with results as the trainable makes them."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def start(self, number: int, run: RunConfig) -> SimpleNamespace:
        trial = SimpleNamespace(config={"number": number, "run": run.model_dump()})
        self._tracker.on_trial_start(iteration=0, trials=[], trial=trial)
        return trial

    def report(
        self,
        trial: SimpleNamespace,
        step: int,
        status: str,
        metrics: dict[str, float],
        **facts: Any,
    ) -> None:
        result = {"status": status, "done": status != "running", "metrics": metrics, "step": step}
        result |= MEASURED | FACTS | facts
        self._tracker.on_trial_result(iteration=0, trials=[], trial=trial, result=result)

    def lose(self, trial: SimpleNamespace) -> None:
        self._tracker.on_trial_error(iteration=0, trials=[], trial=trial)


def accuracy(value: float) -> dict[str, float]:
    return {"val_accuracy": value, "val_interval": 0.012345678901234567, "query_loss": 1.0}


def write_mixed(tune: FakeTune) -> None:
    """A trial of every status, and the better one of the two complete ones second."""
    for number, (value, final) in enumerate([(0.5, 0.6), (0.1, 2 / 3)]):
        trial = tune.start(number, run_config(inner_lr=0.1 / 3, inner_steps=number))
        tune.report(trial, 30, "running", accuracy(value))
        tune.report(trial, 60, "complete", accuracy(final))
    diverged = tune.start(2, run_config(inner_lr=3.0))
    tune.report(diverged, 30, "running", accuracy(0.9))
    tune.report(diverged, 41, "diverged", {}, message="loss is nan")
    too_big = tune.start(3, run_config(task_batch=512))
    tune.report(too_big, 1, "out_of_memory", {}, peak_memory_bytes=None, seconds_per_step=None)
    running = tune.start(4, run_config(outer_lr=1.2345e-4))
    tune.report(running, 30, "running", accuracy(0.7))
    tune.start(5, run_config(outer_lr=9e-3))
    tune.lose(tune.start(6, run_config(cg_steps=3)))


def write_diverged(tune: FakeTune) -> None:
    tune.report(tune.start(0, run_config()), 3, "diverged", {}, message="loss is nan")


def write_single(tune: FakeTune) -> None:
    tune.report(tune.start(0, run_config()), 1, "complete", accuracy(0.25), peak_memory_bytes=None)
