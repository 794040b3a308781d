"""`--dry-run`: the plan of a sweep, and its cost."""

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import ByteSize
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
from sweeps.engine.display.table import short
from sweeps.engine.display.timing import Timing, timing
from sweeps.engine.execution import cluster
from sweeps.engine.execution.placement import Device, reservation, share, this_device
from sweeps.engine.ledger.schedule import Quotas, quotas
from sweeps.engine.options import Options
from sweeps.engine.study import design
from sweeps.engine.study.study import Study

_SAMPLES = 64
"""Configs drawn from the space, of which memory is predicted."""

_PATIENCE = 10.0
"""Seconds of the processor after which no further config is looked at."""

_TIMED = 3
"""Configs of which a task is timed."""


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
    peaks = _predicted(runs)
    for line in _memory(peaks, device, options.memory_budget, study.memory_limit):
        console.print(line)
    cache = options.cache or options.data_root / "cache"
    timings = _timings(runs, dataset, device, cache / "timings.json")
    train, validate = (
        statistics.mean(seconds)
        for seconds in zip(*((t.training, t.validation) for t in timings), strict=True)
    )
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
    console.print(_basis(timings, device))
    if price is not None:
        # Trials that share a GPU share its price; that each is slower for it is not known here.
        sizes = [reservation(peak.whole, device) for peak in peaks]
        shares = [share(size, device) if device.gpu else options.cpus_per_trial for size in sizes]
        taken = statistics.mean(shares)
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


def _predicted(runs: Sequence[RunConfig]) -> list[TrialMemory]:
    """The memory of as many of the runs as there is time for, of one at least."""
    begun = time.process_time()
    peaks: list[TrialMemory] = []
    for run in runs:
        if peaks and time.process_time() > begun + _PATIENCE:
            break
        peaks.append(predict_trial_memory(run))
    return peaks


def _memory(
    peaks: Sequence[TrialMemory], device: Device, budget: int | None, limit: int | None
) -> Iterator[str]:
    steps = sorted(peak.step for peak in peaks)
    text = (
        f"peak memory of a training step, predicted for {len(peaks)} configs: "
        f"{steps[0] / 2**20:.1f} to {steps[-1] / 2**20:.1f} MiB"
    )
    sizes = [reservation(peak.whole, device) for peak in peaks]
    if device.gpu:
        fewest, most = (int(1 / share(size, device)) for size in (max(sizes), min(sizes)))
        text += f"; {fewest} to {most} trials on a GPU at once"
    room = min(budget or device.memory, device.memory)
    refused = sum(size > room for size in sizes)
    if refused:
        text += f"; {100 * refused / len(peaks):.0f} % of the configs do not fit"
    yield text
    if limit is not None:
        within = sum(step <= limit for step in steps)
        said = f"{within} of these configs stay within it"
        if not within:
            said = "none of these configs can meet it, and without one that does nothing is best"
        yield f"memory limit {ByteSize(limit).human_readable(separator=' ')}: {said}"


def _timings(
    runs: Sequence[RunConfig], dataset: Dataset, device: Device, memory: Path
) -> list[Timing]:
    """Those of the first configs that train."""
    on = torch.device("cuda" if device.gpu else "cpu")
    begun = time.process_time()
    timings: list[Timing] = []
    for run in runs:
        if len(timings) == _TIMED or (timings and time.process_time() > begun + _PATIENCE):
            break
        measured = timing(run, dataset, on, memory)
        if measured:
            timings.append(measured)
    if not timings:
        raise InputError(f"all of {len(runs)} configs of this space diverge in their first steps")
    return timings


def _basis(timings: Sequence[Timing], device: Device) -> str:
    """What the predicted time rests on."""
    on = torch.device("cuda" if device.gpu else "cpu")
    oldest = datetime.fromtimestamp(min(timing.at for timing in timings))
    what = "of the device" if device.gpu else "of the processor"
    return (
        f"it rests on the time {what} in a few steps of {len(timings)} configs, at "
        f"{oldest:%Y-%m-%d %H:%M} on this machine ({provenance.hardware(on)})"
    )


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
