"""Trials an hour of one GPU with 1, 2, 4, 8 and 16 of them on it at once.

    python benchmarks/packing.py                          # of glyphs, which need no data
    python benchmarks/packing.py configs/cifar_fs.yaml --data-root data

Each trial is a process of its own that trains the same config, and has what a sweep gives it: a CPU
thread, and so much of the GPU's memory as it is predicted to need, at which it is capped. It takes
a few steps and scores a batch of validation tasks, which may need more memory than a step does;
when all are ready, the clock starts. Validations are not on the clock.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from threading import BrokenBarrierError
from typing import NamedTuple

import click
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from memmeta import data
from memmeta.command_line import data_root_option, run_command
from memmeta.config import RunConfig
from memmeta.errors import InputError
from memmeta.exported import read_run
from memmeta.memory import limits
from memmeta.memory.prediction import predict_trial_memory
from memmeta.system import provenance
from memmeta.system.runtime import configure_process
from memmeta.training import DivergedError, MetaTrainer

TRIAL_STEPS = 2000
"""Outer steps of the trial of which there are so many an hour."""
_WARM_UP = 4
"""Steps before the clock starts: one allocates, two are watched for memory on a CPU."""
_PATIENCE = 600
"""Seconds that a process waits for the others to be ready."""

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "glyphs.yaml"


class Card(NamedTuple):
    """What the trials share."""

    name: str
    memory: int
    """Bytes."""
    overhead: int
    """Bytes that each process takes besides its tensors."""


class Trial(NamedTuple):
    """What one process measured."""

    seconds: float
    """Of its steps."""
    used: int
    """Bytes of the device that it took at most, with its overhead."""


@dataclass(frozen=True)
class Row:
    """So many trials at once, measured."""

    at_once: int
    steps_per_second: float
    """Of one trial, median."""
    trials_per_hour: float
    """Of all, as if each took `TRIAL_STEPS` steps; the last to end counts."""
    reserved: float
    """Part of the card."""
    used: float
    """The most that a trial took of what was reserved for it."""
    over: int
    """Trials that took more."""


def card(device: str) -> Card:
    """Asked in a process that has the device for itself."""
    place = torch.device(device)
    configure_process(1)
    overhead = limits.process_overhead(place)
    if place.type == "cuda":
        memory = torch.cuda.get_device_properties(place).total_memory
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Card(provenance.hardware(place), memory, overhead)


_all_ready: Barrier


def share_barrier(barrier: Barrier) -> None:
    """Begin a process."""
    global _all_ready
    _all_ready = barrier


def train(
    run: RunConfig, data_root: Path, device: str, reserved: int, overhead: int, steps: int
) -> Trial:
    """One trial, within what is reserved for it."""
    try:
        trainer = _begin(run, data_root, torch.device(device), reserved, overhead)
        _all_ready.wait(_PATIENCE)
    except BaseException:
        _all_ready.abort()
        raise
    begun = time.perf_counter()
    for _ in range(steps):
        trainer.step()
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
        return Trial(time.perf_counter() - begun, torch.cuda.max_memory_reserved() + overhead)
    assert trainer.peak_memory is not None
    return Trial(time.perf_counter() - begun, trainer.peak_memory + overhead)


def _begin(
    run: RunConfig, data_root: Path, device: torch.device, reserved: int, overhead: int
) -> MetaTrainer:
    configure_process(1)
    limits.cap(device, reserved, overhead)
    trainer = MetaTrainer(run, data.load(run.data.name, data_root), device)
    for _ in range(_WARM_UP):
        trainer.step()
    trainer.score("val", range(trainer.evaluation_batch))
    if device.type == "cuda":
        torch.cuda.synchronize()
    return trainer


def measure(
    at_once: int, run: RunConfig, data_root: Path, device: str, on: Card, reserved: int, steps: int
) -> Row:
    """So many trials at once.

    Raises:
        click.ClickException: one of them failed.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, spawn, share_barrier, (spawn.Barrier(at_once),)) as pool:
        # None ends before all have begun, so that each process takes one.
        asked = [
            pool.submit(train, run, data_root, device, reserved, on.overhead, steps)
            for _ in range(at_once)
        ]
        errors = [error for each in asked if (error := each.exception())]
    if errors:
        told = [error for error in errors if not isinstance(error, BrokenBarrierError)]
        raise click.ClickException(f"{at_once} at once: {_reason((told or errors)[0])}")
    results = [each.result() for each in asked]
    slowest = max(result.seconds for result in results)
    return Row(
        at_once,
        steps_per_second=median(steps / result.seconds for result in results),
        trials_per_hour=at_once * steps / slowest * 3600 / TRIAL_STEPS,
        reserved=at_once * reserved / on.memory,
        used=max(result.used for result in results) / reserved,
        over=sum(result.used > reserved for result in results),
    )


def _reason(error: BaseException) -> str:
    if limits.is_out_of_memory(error):
        return "a trial had too little memory"
    if isinstance(error, BrokenProcessPool):
        return "a process was lost"
    if isinstance(error, BrokenBarrierError):
        return f"not all were ready within {_PATIENCE} s"
    if isinstance(error, DivergedError):
        return "the training diverged"
    raise error


def table(rows: Sequence[Row], title: str) -> Table:
    """A line a number of trials."""
    result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for heading in ("at once", "steps/s each", "trials/h", "÷ one", "reserved", "used", "over"):
        result.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        result.add_row(
            str(row.at_once),
            f"{row.steps_per_second:.2f}",
            f"{row.trials_per_hour:.1f}",
            f"{row.trials_per_hour / rows[0].trials_per_hour:.2f}" if rows[0].at_once == 1 else "",
            f"{row.reserved:.0%}",
            f"{row.used:.2f}",
            str(row.over),
        )
    return result


@click.command()
@click.argument("config_file", type=click.Path(path_type=Path), default=CONFIG)
@data_root_option
@click.option("--at-once", type=click.IntRange(min=1), multiple=True, default=[1, 2, 4, 8, 16],
              show_default=True, help="Trials on the GPU at the same time.")  # fmt: skip
@click.option("--iterations", type=click.IntRange(min=1), default=100, show_default=True,
              help="Outer steps on the clock.")  # fmt: skip
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True,
              help="cpu is for a trial of this script.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="A list of rows, for machines.")
def main(
    config_file: Path,
    data_root: Path,
    at_once: Sequence[int],
    iterations: int,
    device: str,
    as_json: bool,
) -> None:
    """Train the run of CONFIG_FILE many times at once, on one GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("a GPU is needed: none is visible to PyTorch")
    run = read_run(config_file, 1).config
    # What is wrong with the data is said here; the trials find it prepared.
    data.load(run.data.name, data_root)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        on = pool.submit(card, device).result()
    predicted = predict_trial_memory(run).whole
    reserved = limits.reservation(torch.device(device), predicted, on.overhead)
    numbers = [number for number in at_once if number * reserved <= on.memory]
    for number in sorted(set(at_once) - set(numbers)):
        click.echo(f"{number} at once: more than the device has room for", err=True)
    rows = []
    for number in numbers:
        click.echo(f"{number} at once", err=True)
        rows.append(measure(number, run, data_root, device, on, reserved, iterations))
    if as_json:
        facts = {**run.flat(), "timed_steps": iterations, "hardware": on.name}
        click.echo(json.dumps([asdict(row) | facts for row in rows], indent=1))
    else:
        Console().print(table(rows, f"{config_file}, {on.name}"))


if __name__ == "__main__":
    run_command(main)
