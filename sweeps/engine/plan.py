"""`--dry-run`: what a sweep would do and what it would cost."""

import time

import optuna
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from rich import box
from rich.console import Console
from rich.table import Table

from memmeta.config import RunConfig
from memmeta.data import Dataset
from memmeta.metric import MSE
from memmeta.prediction import predict_peak_memory
from memmeta.runtime import configure_process
from memmeta.training import MetaTrainer
from sweeps.engine.study import Study

_SAMPLES = 256
_TIMED_STEPS = 3
_TIMED_TASKS = 8


def show(console: Console, study: Study, trials: int, seed: int, dataset: Dataset) -> None:
    """Print the space, the budget and the predicted cost, from a few timed steps."""
    console.print(f"[bold]{study.sweep_name(seed)}[/]: {trials} trials on {study.data.name}")
    console.print(_space_table(study))
    runs = _sample(study, seed)
    tasks = sum(run.iterations * run.learner.task_batch for run in runs) / len(runs)
    validations = study.training.evaluations * study.training.val_tasks
    console.print(
        f"a trial: {_budget(study)}; on average {tasks:.0f} tasks of {_episode(study)}, and "
        f"{study.training.evaluations} validations on {study.training.val_tasks} tasks"
    )
    lean, heavy = (
        predict_peak_memory(choose(runs, key=lambda run: run.learner.task_batch))
        for choose in (min, max)
    )
    console.print(
        f"peak memory of a training step, predicted for the smallest and the largest task batch: "
        f"{lean / 2**20:.1f} and {heavy / 2**20:.1f} MiB"
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    configure_process(threads=1)
    train, validate = _seconds_per_task(runs[0], dataset, device)
    hours = trials * (tasks * train + validations * validate) / 3600
    console.print(
        f"predicted: {_duration(hours)} of work ({1000 * train:.1f} ms a training task, "
        f"{1000 * validate:.1f} ms a validation task on one "
        f"{'GPU' if device.type == 'cuda' else 'CPU core'}), shared by the trials that run at once"
    )


def _space_table(study: Study) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("searched", "from", "to", "scale"):
        table.add_column(heading)
    for name, distribution in study.space.items():
        match distribution:
            case FloatDistribution() | IntDistribution():
                scale = "log" if distribution.log else "linear"
                table.add_row(name, f"{distribution.low:g}", f"{distribution.high:g}", scale)
            case CategoricalDistribution():
                table.add_row(name, ", ".join(map(str, distribution.choices)), "", "choice")
    return table


def _sample(study: Study, seed: int) -> list[RunConfig]:
    sampler = optuna.samplers.RandomSampler(seed=seed)
    draws = optuna.create_study(sampler=sampler)
    return [study.run_config(draws.ask(dict(study.space)).params, seed) for _ in range(_SAMPLES)]


def _budget(study: Study) -> str:
    budget = study.training
    return f"{budget.iterations} outer steps" if budget.iterations else f"{budget.tasks} tasks"


def _episode(study: Study) -> str:
    data = study.data
    if data.metric is MSE:
        return f"{data.shots}-shot regression with {data.queries} query points"
    return f"{data.ways}-way {data.shots}-shot with {data.queries} queries a class"


def _seconds_per_task(
    run: RunConfig, dataset: Dataset, device: torch.device
) -> tuple[float, float]:
    """Wall time of a task in training and in validation, each after a warm-up."""
    trainer = MetaTrainer(run, dataset, device)
    # The first steps are slowed by warming up and by watching memory.
    while trainer.seconds_per_step is None or trainer.iteration < 3 + _TIMED_STEPS:
        trainer.step()
    begun = time.perf_counter()
    trainer.evaluate("val", _TIMED_TASKS)
    validation = (time.perf_counter() - begun) / _TIMED_TASKS
    return trainer.seconds_per_step / run.learner.task_batch, validation


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
