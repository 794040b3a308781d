"""What command lines share: options, the device, a run trained to its end in view."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import Progress

from memmeta.errors import InputError

if TYPE_CHECKING:
    import torch

    from memmeta.training import MetaTrainer

data_root_option = click.option(
    "--data-root", type=click.Path(path_type=Path), default=Path("data"), show_default=True,
    envvar="MEMMETA_DATA_ROOT", show_envvar=True, help="Folder with the data sets.",
)  # fmt: skip
cache_option = click.option(
    "--cache", type=click.Path(path_type=Path), envvar="MEMMETA_CACHE", show_envvar=True,
    help="Folder for prepared data; default: cache in the data root.",
)  # fmt: skip
device_option = click.option(
    "--device", default=None, help="PyTorch device; default: a GPU if there is one."
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads; default: as many as an exported run states it had, else all.",
)


def chosen_device(name: str | None) -> "torch.device":
    """The device of `--device`; by default a GPU if there is one.

    Raises:
        InputError: there is no such device, or none that computes.
    """
    # Takes seconds, and most of what is asked of a command line does not need it.
    import torch

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        # Asks for a number, since a meta tensor can be made and has none.
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device


def train_to_end(
    trainer: "MetaTrainer", console: Console, save: Callable[[], None] = lambda: None
) -> None:
    """Train to the end of the budget: a progress bar on a terminal, a line every validation.

    Args:
        trainer: new, or where it was interrupted.
        console: where to print.
        save: called after every validation, before its line, and now and then between two.

    Raises:
        DivergedError: as `MetaTrainer.step`.
    """
    # Takes seconds: see above.
    from memmeta import checkpoint

    metric = trainer.config.data.metric
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(
            "outer steps", total=trainer.config.iterations, completed=trainer.iteration
        )
        while not trainer.done:
            report = trainer.train_to_evaluation(
                on_step=lambda: progress.advance(bar), between_steps=checkpoint.now_and_then(save)
            )
            save()
            progress.console.print(
                f"step {report.iteration:>6}   "
                f"val {metric.title} {metric.text(report.val.value, report.val.interval)}   "
                f"query loss {report.diagnostics['query_loss']:.3f}"
            )
