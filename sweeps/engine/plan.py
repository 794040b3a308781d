"""`--dry-run`: what a sweep would do and what it would cost."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from rich import box
from rich.console import Console
from rich.table import Table

from memmeta.config import DataConfig, RunConfig
from memmeta.data import Dataset
from memmeta.errors import InputError
from memmeta.metric import MSE
from memmeta.prediction import predict_peak_memory, predict_trial_memory
from memmeta.runtime import configure_process
from memmeta.training import DivergedError, MetaTrainer
from sweeps.engine import cluster, design
from sweeps.engine.options import Options
from sweeps.engine.placement import Device, reservation, share, this_device
from sweeps.engine.schedule import Quotas, quotas
from sweeps.engine.study import Study
from sweeps.engine.table import short

_SAMPLES = 64
_TIMED_STEPS = 3
_TIMED_TASKS = 8


def show(
    console: Console, study: Study, options: Options, dataset: Dataset, price: float | None
) -> None:
    """Print the space, the stages, the predicted memory and the cost, from a few timed steps.

    Args:
        console: where to.
        study: what is planned.
        options: how it would be run.
        dataset: the study's, to time steps on.
        price: of an hour of a GPU, or of a CPU where there is none.

    Raises:
        InputError: this machine has too few CPUs for a trial.
    """
    wanted = quotas(study, options.stage, study.trials)
    trials = sum(wanted.values())
    name = study.sweep_name(options.seed)
    console.print(f"[bold]{name}[/]: {trials} trials on {study.data.name}")
    console.print(_dimensions(study, wanted))
    console.print("stages: " + ", ".join(f"{stage} {n}" for stage, n in wanted.items()))
    parts = _parts(study, options.seed, wanted)
    for part in parts:
        console.print(part.described)
    runs = [run for part in parts for run in part.runs]
    cores = os.cpu_count() or 1
    if cluster.running() is None and options.cpus_per_trial > cores:
        raise InputError(f"--cpus-per-trial {options.cpus_per_trial}: this machine has {cores}")
    configure_process(threads=options.cpus_per_trial)
    device = this_device()
    console.print(_memory(runs, device, options.memory_budget))
    train, validate = _first_that_trains(runs, dataset, device)
    validated = sum(part.trials * part.validation_tasks for part in parts)
    validated += wanted.get("confirm", 0) * study.training.test_tasks
    trained = sum(part.trials * part.tasks for part in parts)
    hours = (trained * train + validated * validate) / 3600
    unit = "GPU" if device.gpu else "CPU"
    console.print(
        f"predicted: {_duration(hours)} of work ({1000 * train:.1f} ms a training task, "
        f"{1000 * validate:.1f} ms a validation task on one {unit}), shared by the trials that "
        "run at once"
    )
    if price is not None:
        # Trials that share a GPU share its price; that each is slower for it is not known here.
        shares = [_share(run, device) if device.gpu else options.cpus_per_trial for run in runs]
        taken = sum(shares) / len(runs)
        console.print(f"price: {hours * taken * price:.2f} at {price:g} an hour of a {unit}")


def _dimensions(study: Study, wanted: Quotas) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    if "grid" in wanted:
        for heading in ("every combination of", ""):
            table.add_column(heading)
        for name, values in study.grid.items():
            table.add_row(name, ", ".join(map(short, values)))
        for name, values in study.tuned.items():
            table.add_row(f"{name}, the best of", ", ".join(map(short, values)))
        table.add_row("training seeds", str(study.seeds))
        return table
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


@dataclass(frozen=True)
class _Part:
    """Trials of one budget."""

    title: str
    """Names one of them."""
    trials: int
    """How many there are."""
    runs: Sequence[RunConfig]
    """Some like them."""

    @property
    def tasks(self) -> float:
        """What one trains on, on average."""
        seen = [run.iterations * run.learner.task_batch for run in self.runs]
        return sum(seen) / len(seen)

    @property
    def validation_tasks(self) -> int:
        """What one is validated on, in all."""
        budget = self.runs[0].training
        return budget.evaluations * budget.val_tasks

    @property
    def described(self) -> str:
        """One line."""
        budget = self.runs[0].training
        times = "1 validation" if budget.evaluations == 1 else f"{budget.evaluations} validations"
        return (
            f"{self.title}: {budget.amount}; on average {self.tasks:.0f} tasks of "
            f"{_episode(self.runs[0].data)}, and {times} on {budget.val_tasks} tasks"
        )


def _parts(study: Study, seed: int, wanted: Quotas) -> list[_Part]:
    """The trials of the sweep by their budgets."""
    if "grid" not in wanted:
        points = (design.sobol_point(study, seed, index) for index in range(_SAMPLES))
        runs = [study.run_config(params, seed) for params in points]
        return [_Part("a trial", sum(wanted.values()), runs)]
    cells = design.grid_cells(study)
    # Which of a cell's params are the best is not known yet; the first stand for them.
    firsts = [study.run_config(cell[0], seed, "grid") for cell in cells]
    if "tune" not in wanted:
        return [_Part("a trial", wanted["grid"], firsts)]
    attempts = [study.run_config(params, seed, "tune") for cell in cells for params in cell]
    return [
        _Part("a trial that tunes", wanted["tune"], attempts),
        _Part("a trial of the tuned grid", wanted["grid"], firsts),
    ]


def _episode(data: DataConfig) -> str:
    if data.metric is MSE:
        return f"{data.shots}-shot regression with {data.queries} query points"
    ways = data.in_training.ways
    return f"{ways}-way {data.shots}-shot with {data.queries} queries a class"


def _memory(runs: Sequence[RunConfig], device: Device, budget: int | None) -> str:
    peaks = sorted(map(predict_peak_memory, runs))
    text = (
        "peak memory of a training step, predicted: "
        f"{peaks[0] / 2**20:.1f} to {peaks[-1] / 2**20:.1f} MiB"
    )
    sizes = [reservation(predict_trial_memory(run).whole, device) for run in runs]
    if device.gpu:
        fewest, most = (int(1 / share(size, device)) for size in (max(sizes), min(sizes)))
        text += f"; {fewest} to {most} trials on a GPU at once"
    limit = min(budget or device.memory, device.memory)
    refused = sum(size > limit for size in sizes)
    if refused:
        text += f"; {100 * refused / len(runs):.0f} % of the configs do not fit"
    return text


def _share(run: RunConfig, device: Device) -> float:
    return share(reservation(predict_trial_memory(run).whole, device), device)


def _first_that_trains(
    runs: Sequence[RunConfig], dataset: Dataset, device: Device
) -> tuple[float, float]:
    for run in runs:
        with suppress(DivergedError):
            return _seconds_per_task(run, dataset, device)
    raise InputError(f"all of {len(runs)} configs of this space diverge in their first steps")


def _seconds_per_task(run: RunConfig, dataset: Dataset, device: Device) -> tuple[float, float]:
    """Wall time of a task in training and in validation, each after a warm-up."""
    trainer = MetaTrainer(run, dataset, torch.device("cuda" if device.gpu else "cpu"))
    # The first steps are slowed by warming up and by watching memory.
    while trainer.seconds_per_step is None or trainer.iteration < 3 + _TIMED_STEPS:
        trainer.step()
    begun = time.perf_counter()
    trainer.evaluate("val", _TIMED_TASKS)
    validation = (time.perf_counter() - begun) / _TIMED_TASKS
    return trainer.seconds_per_step / run.learner.task_batch, validation


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
