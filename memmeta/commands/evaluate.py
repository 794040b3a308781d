"""`memmeta evaluate`: score a checkpoint."""

from pathlib import Path

import click

from memmeta import checkpoint, data
from memmeta.command_line import (
    Command,
    cache_option,
    chosen_device,
    data_root_option,
    device_option,
    failures_in_one_line,
    threads_option,
)
from memmeta.system.runtime import configure_process
from memmeta.training import MetaTrainer


@click.command(cls=Command, epilog="Example: memmeta evaluate model.pt --tasks 1000")
@click.argument("checkpoint_file", type=click.Path(path_type=Path))
@data_root_option
@cache_option
@click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True)
@click.option("--tasks", type=click.IntRange(min=2), help="Episodes; default: the config's.")
@device_option
@threads_option
def evaluate(
    checkpoint_file: Path,
    data_root: Path,
    cache: Path | None,
    split: str,
    tasks: int | None,
    device: str | None,
    threads: int | None,
) -> None:
    """Score CHECKPOINT_FILE, which `train` wrote, on test (or validation) episodes."""
    saved = checkpoint.load(checkpoint_file)
    config = saved.config
    configure_process(threads)
    dataset, torch_device = data.load(config.data.name, data_root, cache), chosen_device(device)
    with failures_in_one_line():
        trainer = MetaTrainer(config, dataset, torch_device)
        checkpoint.restore(trainer, saved, checkpoint_file)
        if split == "val":
            result = trainer.evaluate("val", tasks or config.training.val_tasks)
        else:
            result = trainer.evaluate("test", tasks or config.training.test_tasks)
    metric = config.data.metric
    click.echo(f"{split} {metric.title} {metric.text(result.value, result.interval)}")
