"""Throughput of one GPU, in trials per hour, with 1, 2, 4, 8 and 16 trials at once.

    python benchmarks/packing.py                          # glyphs, which need no data
    python benchmarks/packing.py configs/cifar_fs.yaml --data-root data

Each trial is a separate process that trains the same config with the resources that a sweep gives
it: one CPU thread, and a share of the GPU's memory that equals its predicted need and caps it. A
trial first takes a few steps and scores a batch of validation tasks, which can need more memory
than a step. The clock starts when all trials are ready and excludes validations.
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
from memmeta.errors import DivergedError, InputError
from memmeta.evaluation import batch_size, score
from memmeta.exported import read_run
from memmeta.memory import limits
from memmeta.memory.prediction import predict_trial_memory
from memmeta.system import provenance
from memmeta.system.runtime import configure_process
from memmeta.training import MetaTrainer

TRIAL_STEPS = 2000
"""Outer steps of a trial, for trials per hour."""
_WARM_UP = 4
"""Steps before the clock starts: one allocates, two are measured for memory on a CPU."""
_PATIENCE = 600
"""Maximum seconds that a process waits for the others."""

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "glyphs.yaml"


class Card(NamedTuple):
    """The device that the trials share."""

    name: str
    memory: int
    """Memory in bytes."""
    overhead: int
    """Bytes that each process takes in addition to its tensors."""


class Trial(NamedTuple):
    """Measurements of one process."""

    seconds: float
    """Time of its steps."""
    used: int
    """Peak bytes of the device's memory, including the overhead."""


@dataclass(frozen=True)
class Row:
    """Measurements for one number of trials at once."""

    at_once: int
    """Number of trials at once."""
    steps_per_second: float
    """Steps per second of one trial, median over trials."""
    trials_per_hour: float
    """Throughput of all for trials of `TRIAL_STEPS` steps, by the slowest trial."""
    reserved: float
    """Share of the device's memory that is reserved."""
    used: float
    """Largest share of its reservation that a trial used."""
    over: int
    """Number of trials that exceeded their reservation."""


def describe(device: str) -> Card:
    """Describe the device; to be called in a process that uses nothing else on it."""
    torch_device = torch.device(device)
    configure_process(1)
    overhead = limits.process_overhead(torch_device)
    if torch_device.type == "cuda":
        memory = torch.cuda.get_device_properties(torch_device).total_memory
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Card(provenance.hardware(torch_device), memory, overhead)


_all_ready: Barrier


def share_barrier(barrier: Barrier) -> None:
    """Initialise a worker process with the barrier that all of them share."""
    global _all_ready
    _all_ready = barrier


def train(
    run: RunConfig, data_root: Path, device: str, reserved: int, overhead: int, steps: int
) -> Trial:
    """Run one trial within its memory reservation."""
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
    score(trainer.model, run, trainer.dataset, "val", range(batch_size(run)))
    if device.type == "cuda":
        torch.cuda.synchronize()
    return trainer


def measure(
    at_once: int,
    run: RunConfig,
    data_root: Path,
    device: str,
    card: Card,
    reserved: int,
    steps: int,
) -> Row:
    """Measure `at_once` trials at once.

    Raises:
        click.ClickException: a trial failed.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, spawn, share_barrier, (spawn.Barrier(at_once),)) as pool:
        # No trial ends before all have started, so each process runs one.
        futures = [
            pool.submit(train, run, data_root, device, reserved, card.overhead, steps)
            for _ in range(at_once)
        ]
        errors = [error for future in futures if (error := future.exception())]
    if errors:
        causes = [error for error in errors if not isinstance(error, BrokenBarrierError)]
        raise click.ClickException(f"{at_once} at once: {_reason((causes or errors)[0])}")
    results = [future.result() for future in futures]
    slowest = max(result.seconds for result in results)
    return Row(
        at_once,
        steps_per_second=median(steps / result.seconds for result in results),
        trials_per_hour=at_once * steps / slowest * 3600 / TRIAL_STEPS,
        reserved=at_once * reserved / card.memory,
        used=max(result.used for result in results) / reserved,
        over=sum(result.used > reserved for result in results),
    )


def _reason(error: BaseException) -> str:
    if limits.is_out_of_memory(error):
        return "a trial had too little memory"
    if isinstance(error, BrokenProcessPool):
        return "a process died"
    if isinstance(error, BrokenBarrierError):
        return f"not all trials were ready within {_PATIENCE} s"
    if isinstance(error, DivergedError):
        return "the training diverged"
    raise error


def table(rows: Sequence[Row], title: str) -> Table:
    """A table with one row per number of trials at once."""
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
              show_default=True, help="Trials on the GPU at once; can be repeated.")  # fmt: skip
@click.option("--iterations", type=click.IntRange(min=1), default=100, show_default=True,
              help="Timed outer steps.")  # fmt: skip
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True,
              help="cpu is only for testing this script.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of rows.")
def main(
    config_file: Path,
    data_root: Path,
    at_once: Sequence[int],
    iterations: int,
    device: str,
    as_json: bool,
) -> None:
    """Train the config in CONFIG_FILE several times at once on one GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("a GPU is needed: none is visible to PyTorch")
    run = read_run(config_file, 1).config
    # Prepares the data, so that problems with it are reported before the trials start.
    data.load(run.data.name, data_root)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        card = pool.submit(describe, device).result()
    predicted = predict_trial_memory(run).whole
    reserved = limits.reservation(torch.device(device), predicted, card.overhead)
    numbers = [number for number in at_once if number * reserved <= card.memory]
    for number in sorted(set(at_once) - set(numbers)):
        click.echo(f"{number} at once: more than the device has room for", err=True)
    rows = []
    for number in numbers:
        click.echo(f"{number} at once", err=True)
        rows.append(measure(number, run, data_root, device, card, reserved, iterations))
    if as_json:
        facts = {**run.flat(), "timed_steps": iterations, "hardware": card.name}
        click.echo(json.dumps([asdict(row) | facts for row in rows], indent=1))
    else:
        Console().print(table(rows, f"{config_file}, {card.name}"))


if __name__ == "__main__":
    run_command(main)
