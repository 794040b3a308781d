"""`memmeta evaluate`: score a checkpoint."""

from pathlib import Path
from typing import Literal

import click

from memmeta import data
from memmeta.command_line import (
    Command,
    cache_option,
    data_root_option,
    device_option,
    failures_in_one_line,
    threads_option,
    trust_code_option,
)
from memmeta.run import load
from memmeta.system.runtime import configure_process


@click.command(cls=Command, epilog="Example: memmeta evaluate model.pt --data fc100 --tasks 1000")
@click.argument("checkpoint_file", type=click.Path(path_type=Path))
@click.option("--data", "other", metavar="NAME", help="Another data set than that of training.")
@data_root_option
@cache_option
@click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True)
@click.option("--tasks", type=click.IntRange(min=2), help="Episodes; default: the config's.")
@device_option
@threads_option
@trust_code_option
def evaluate(
    checkpoint_file: Path,
    other: str | None,
    data_root: Path,
    cache: Path | None,
    split: Literal["val", "test"],
    tasks: int | None,
    device: str | None,
    threads: int | None,
    trust_code: bool,
) -> None:
    """Score CHECKPOINT_FILE, which `train` wrote, on test (or validation) episodes.

    With --data, the episodes are those of another data set, with images of the size, channels and
    normalisation of the training data.
    """
    configure_process(threads)
    with failures_in_one_line():
        run = load(checkpoint_file, device=device, trust_code=trust_code)
        trained_on = run.config.data.name
        dataset = data.load(other or trained_on, data_root, cache)
        result = run.evaluate(split, tasks, data=dataset)
    metric = run.config.data.metric
    if dataset.name != trained_on:
        click.echo(f"trained on {trained_on}, scored on {result.tasks} {split} tasks of {other}")
    click.echo(f"{split} {metric.title} {metric.text(result.value, result.interval)}")
