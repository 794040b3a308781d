"""Trials per hour when several share one GPU.

    python benchmarks/packing.py

As many processes as trials train the same config at once, each capped at its share of the card:
what is predicted for a trial, with the headroom and the process overhead that a sweep reserves.
They begin together when all have warmed up. The table says how many trials of the config's budget
the card would finish in an hour, and whether any process took more than its share.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from typing import Any

import click
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from memmeta import limits, provenance
from memmeta.config import RunConfig, parse
from memmeta.prediction import ShapeDataset, predict_trial_memory
from memmeta.runtime import configure_process
from memmeta.training import MetaTrainer

MIB = 2**20
_WARM_UP = 5


@dataclass(frozen=True)
class Process:
    """What one of those that share the card found."""

    seconds: float
    """For the timed steps."""
    reserved: int
    """Bytes of its share."""
    used: int
    """The most bytes that PyTorch's allocator held, and the process' overhead."""


def train(run: RunConfig, size: int, steps: int, ready: Barrier, answers: Any) -> None:
    """Train in a process of its own, within its share of the card."""
    configure_process(1)
    device = torch.device("cuda")
    overhead = limits.process_overhead(device)
    predicted = predict_trial_memory(run, (3, size, size)).whole
    reserved = limits.reservation(device, predicted, overhead)
    limits.cap(device, reserved, overhead)
    trainer = MetaTrainer(run, ShapeDataset((3, size, size)), device)
    for _ in range(_WARM_UP):
        trainer.step()
    torch.cuda.synchronize(device)
    ready.wait()
    begun = time.perf_counter()
    for _ in range(steps):
        trainer.step()
    torch.cuda.synchronize(device)
    seconds = time.perf_counter() - begun
    answers.put(Process(seconds, reserved, torch.cuda.max_memory_reserved(device) + overhead))


def together(count: int, run: RunConfig, size: int, steps: int) -> list[Process]:
    """What `count` processes found that trained at once."""
    context = get_context("spawn")
    ready, answers = context.Barrier(count), context.Queue()
    children = [
        context.Process(target=train, args=(run, size, steps, ready, answers)) for _ in range(count)
    ]
    for child in children:
        child.start()
    found = []
    while len(found) < count and all(child.exitcode in (None, 0) for child in children):
        if not answers.empty():
            found.append(answers.get())
        time.sleep(0.1)
    for child in children:
        if len(found) < count:
            child.terminate()
        child.join()
    return found


def table(results: dict[int, list[Process]], run: RunConfig, steps: int, title: str) -> Table:
    """A line a number of processes."""
    card = torch.cuda.get_device_properties(0).total_memory
    result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for heading in ("trials", "steps/s each", "trials/h", "share", "MiB", "most of a share"):
        result.add_column(heading, justify="right", no_wrap=True)
    for count, processes in results.items():
        if len(processes) < count:
            result.add_row(str(count), "a process failed", "", "", "", "")
            continue
        slowest = max(process.seconds for process in processes)
        reserved = processes[0].reserved
        result.add_row(
            str(count),
            f"{steps / slowest:.1f}",
            f"{count * 3600 * steps / slowest / run.iterations:.1f}",
            f"{reserved / card:.3f}",
            f"{reserved / MIB:.0f}",
            f"{max(process.used for process in processes) / reserved:.2f}",
        )
    return result


@click.command()
@click.option("--count", type=click.IntRange(min=1), multiple=True, default=[1, 2, 4, 8, 16],
              show_default=True, help="Trials at once.")  # fmt: skip
@click.option("--image-size", default=32, show_default=True, help="Height and width, RGB.")
@click.option("--filters", default=64, show_default=True)
@click.option("--task-batch", default=32, show_default=True)
@click.option("--iterations", default=2000, show_default=True, help="Outer steps of a trial.")
@click.option("--steps", default=50, show_default=True, help="Outer steps that are timed.")
def main(
    count: Sequence[int],
    image_size: int,
    filters: int,
    task_batch: int,
    iterations: int,
    steps: int,
) -> None:
    """Time 1, 2, 4, ... trials on one GPU."""
    if not torch.cuda.is_available():
        raise click.ClickException("packing needs a GPU, and PyTorch sees none here")
    learner = {"filters": filters, "task_batch": task_batch}
    values = {"learner": learner, "training": {"iterations": iterations}}
    run = parse(RunConfig, values, "options")
    console = Console()
    results = {}
    for each in count:
        console.print(f"{each} at once", style="dim")
        results[each] = together(each, run, image_size, steps)
    hardware = provenance.hardware(torch.device("cuda"))
    title = f"{task_batch} tasks of {image_size}×{image_size}, {filters} filters, {hardware}"
    console.print(table(results, run, steps, title))
    if any(len(found) < each for each, found in results.items()):
        sys.exit(1)


if __name__ == "__main__":
    main()
