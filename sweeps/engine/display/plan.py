"""`--dry-run`: the plan of a sweep and its predicted cost."""

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from rich import box
from rich.console import Console
from rich.table import Table

from memmeta.config import DataConfig, RunConfig
from memmeta.data.dataset import Dataset
from memmeta.errors import InputError
from memmeta.memory.prediction import TrialMemory, predict_trial_memory
from memmeta.metric import MSE
from memmeta.system import provenance
from memmeta.system.runtime import configure_process
from memmeta.system.units import human_size, mib, percent, short
from sweeps.engine.display.timing import Timing, timing
from sweeps.engine.execution import cluster
from sweeps.engine.execution.placement import Device, reservation, share_for, this_device
from sweeps.engine.ledger.schedule import Quotas, quotas
from sweeps.engine.options import Options
from sweeps.engine.study import design
from sweeps.engine.study.study import Study

_SAMPLES = 64
"""Number of configs from the space for which memory is predicted."""

_TIME_LIMIT = 10.0
"""Processor time after which no further config is predicted or timed, in seconds."""

_TIMED = 3
"""Number of configs that are timed."""


def show(
    console: Console, study: Study, options: Options, dataset: Dataset, price: float | None
) -> None:
    """Print the space, the stages, the predicted memory and the predicted cost.

    Args:
        console: where to print.
        study: the study.
        options: how it would run.
        dataset: the study's data set. A few training steps on it are timed.
        price: price per hour of a GPU, or of a CPU on machines without GPUs.

    Raises:
        InputError: this machine has too few CPUs for a trial, or all timed configs diverge.
    """
    stage_quotas = quotas(study, options.stage, study.trials)
    trials = sum(stage_quotas.values())
    name = study.sweep_name(options.seed)
    console.print(f"[bold]{name}[/]: {trials} trials on {study.data.name}")
    console.print(_dimensions(study, stage_quotas))
    console.print("stages: " + ", ".join(f"{stage} {n}" for stage, n in stage_quotas.items()))
    groups = _groups(study, options.seed, stage_quotas)
    for group in groups:
        console.print(group.described)
    runs = [run for group in groups for run in group.runs]
    cores = os.cpu_count() or 1
    if cluster.find_cluster() is None and options.cpus_per_trial > cores:
        raise InputError(f"{options.cpus_per_trial} CPUs per trial: this machine has {cores}")
    configure_process(threads=options.cpus_per_trial)
    device = this_device()
    peaks = _predicted(runs)
    for line in _memory(peaks, device, options.memory_budget, study.memory_limit):
        console.print(line)
    cache = options.cache or options.data_root / "cache"
    timings = _timings(runs, dataset, device, cache / "timings.json")
    train, validate = (
        statistics.mean(seconds)
        for seconds in zip(*((t.training, t.validation) for t in timings), strict=True)
    )
    validated = sum(group.trials * group.validation_tasks for group in groups)
    scored_on = 1 + len(study.evaluate_on)
    validated += stage_quotas.get("confirm", 0) * study.training.test_tasks * scored_on
    trained = sum(group.trials * group.tasks for group in groups)
    hours = (trained * train + validated * validate) / 3600
    unit = "GPU" if device.gpu else "CPU"
    console.print(
        f"predicted: {_duration(hours)} of work ({1000 * train:.1f} ms per training task, "
        f"{1000 * validate:.1f} ms per validation task on one {unit}), shared by the trials that "
        "run at once"
    )
    console.print(_measurement(timings, device))
    if price is not None:
        # Trials on one GPU share its price. How much they slow each other down is unknown.
        sizes = [reservation(peak.whole, device) for peak in peaks]
        shares = [
            share_for(size, device) if device.gpu else options.cpus_per_trial for size in sizes
        ]
        mean_share = statistics.mean(shares)
        console.print(f"price: {hours * mean_share * price:.2f} at {price:g} per {unit} hour")


def _dimensions(study: Study, stage_quotas: Quotas) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    if "grid" in stage_quotas:
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
class _TrialGroup:
    """Trials with the same budget."""

    title: str
    """Name of one of them, such as `a trial`."""
    trials: int
    """Number of trials."""
    runs: Sequence[RunConfig]
    """A sample of their runs."""

    @property
    def tasks(self) -> float:
        """Average number of training tasks of a trial."""
        seen = [run.iterations * run.learner.task_batch for run in self.runs]
        return sum(seen) / len(seen)

    @property
    def validation_tasks(self) -> int:
        """Number of validation tasks of a trial."""
        budget = self.runs[0].training
        return budget.evaluations * budget.val_tasks

    @property
    def described(self) -> str:
        """The group in one line."""
        budget = self.runs[0].training
        times = "1 validation" if budget.evaluations == 1 else f"{budget.evaluations} validations"
        return (
            f"{self.title}: {budget.amount}; on average {self.tasks:.0f} tasks of "
            f"{_episode(self.runs[0].data)}, and {times} on {budget.val_tasks} tasks"
        )


def _groups(study: Study, seed: int, stage_quotas: Quotas) -> list[_TrialGroup]:
    """Group the trials of the sweep by their budget."""
    if "grid" not in stage_quotas:
        points = (design.sobol_point(study, seed, index) for index in range(_SAMPLES))
        runs = [study.run_config(params, seed) for params in points]
        return [_TrialGroup("a trial", sum(stage_quotas.values()), runs)]
    cells = design.grid_cells(study)
    # The best params of a cell are not known yet, so use the first ones.
    firsts = [study.run_config(cell[0], seed, "grid") for cell in cells]
    if "tune" not in stage_quotas:
        return [_TrialGroup("a trial", stage_quotas["grid"], firsts)]
    attempts = [study.run_config(params, seed, "tune") for cell in cells for params in cell]
    return [
        _TrialGroup("a trial that tunes", stage_quotas["tune"], attempts),
        _TrialGroup("a trial of the tuned grid", stage_quotas["grid"], firsts),
    ]


def _episode(data: DataConfig) -> str:
    if data.metric is MSE:
        return f"{data.shots}-shot regression with {data.queries} query points"
    ways = data.training_shape.ways
    return f"{ways}-way {data.shots}-shot with {data.queries} queries a class"


def _predicted(runs: Sequence[RunConfig]) -> list[TrialMemory]:
    """Predict the memory of runs until the time is up, and of at least one run."""
    started = time.process_time()
    peaks: list[TrialMemory] = []
    for run in runs:
        if peaks and time.process_time() > started + _TIME_LIMIT:
            break
        peaks.append(predict_trial_memory(run))
    return peaks


def _memory(
    peaks: Sequence[TrialMemory], device: Device, budget: int | None, limit: int | None
) -> Iterator[str]:
    steps = sorted(peak.step for peak in peaks)
    text = (
        f"peak memory of a training step, predicted for {len(peaks)} configs: "
        f"{mib(steps[0], 1)} to {mib(steps[-1], 1)}"
    )
    sizes = [reservation(peak.whole, device) for peak in peaks]
    if device.gpu:
        fewest, most = (int(1 / share_for(size, device)) for size in (max(sizes), min(sizes)))
        text += f"; {fewest} to {most} trials on a GPU at once"
    room = min(budget or device.memory, device.memory)
    refused = sum(size > room for size in sizes)
    if refused:
        text += f"; {percent(refused, len(peaks))} of the configs do not fit"
    yield text
    if limit is not None:
        within = sum(step <= limit for step in steps)
        consequence = f"{within} of these configs stay within it"
        if not within:
            consequence = "none of these configs can meet it, so there would be no best config"
        yield f"memory limit {human_size(limit)}: {consequence}"


def _timings(
    runs: Sequence[RunConfig], dataset: Dataset, device: Device, cache: Path
) -> list[Timing]:
    """Time the first configs that do not diverge."""
    on = torch.device("cuda" if device.gpu else "cpu")
    started = time.process_time()
    timings: list[Timing] = []
    for run in runs:
        if len(timings) == _TIMED or (timings and time.process_time() > started + _TIME_LIMIT):
            break
        measured = timing(run, dataset, on, cache)
        if measured:
            timings.append(measured)
    if not timings:
        raise InputError(f"all of {len(runs)} configs of this space diverge in their first steps")
    return timings


def _measurement(timings: Sequence[Timing], device: Device) -> str:
    """A line about the measurement that the predicted time is based on."""
    on = torch.device("cuda" if device.gpu else "cpu")
    oldest = datetime.fromtimestamp(min(timing.measured_at for timing in timings))
    what = "device time" if device.gpu else "processor time"
    return (
        f"based on the {what} of a few steps of {len(timings)} configs, measured at "
        f"{oldest:%Y-%m-%d %H:%M} on this machine ({provenance.hardware(on)})"
    )


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
