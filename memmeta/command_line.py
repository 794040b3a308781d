"""What command lines share: options, the device, a run trained to its end in view."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

import click
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from memmeta.config import described
from memmeta.errors import InputError
from memmeta.system.plain_text import degrade_output
from memmeta.system.stopping import STOP, heed_signals, postponed

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


def run_command(
    command: click.Command, prog_name: str | None = None, obj: object = None
) -> NoReturn:
    """Run a command line as a process of its own, and exit.

    Beside what Click does, it stops in good order where a signal asks for it, says by which, and
    exits with 130, 143 or 129 (see `memmeta.system.stopping`); and it prints to any terminal.

    Args:
        command: what is run.
        prog_name: how users call it.
        obj: what the command finds in its context.
    """
    degrade_output()
    heed_signals()
    try:
        code = command.main(prog_name=prog_name, obj=obj, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        click.echo(f"stopped by {STOP.by}", err=True)
        code = STOP.exit_code
    sys.exit(code)


def errors_in_one_line() -> None:
    """Have a script that makes configs of its own end with one line where one is not accepted."""
    sys.excepthook = _one_line


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, ValidationError):
        error = InputError(f"{error.title}: {described(error)}")
    if not isinstance(error, InputError):
        sys.__excepthook__(kind, error, trace)
        return
    error.show()
    sys.exit(error.exit_code)


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

    A run that is asked to stop is saved first, after the step or the validation that it is at.

    Args:
        trainer: new, or where it was interrupted.
        console: where to print.
        save: called after every validation, before its line, and now and then between two.

    Raises:
        DivergedError: as `MetaTrainer.step`.
        KeyboardInterrupt: a signal asked this process to stop.
    """
    # Takes seconds: see above.
    from memmeta import checkpoint

    metric = trainer.config.data.metric
    now_and_then = checkpoint.now_and_then(save)
    live = Progress(console=console, transient=True, disable=not console.is_terminal)
    with live as progress, postponed() as stop:

        def between_steps() -> None:
            if stop.requested:
                save()
                raise KeyboardInterrupt
            now_and_then()

        bar = progress.add_task(
            "outer steps", total=trainer.config.iterations, completed=trainer.iteration
        )
        while not trainer.done:
            report = trainer.train_to_evaluation(
                on_step=lambda: progress.advance(bar), between_steps=between_steps
            )
            save()
            progress.console.print(
                f"step {report.iteration:>6}   "
                f"val {metric.title} {metric.text(report.val.value, report.val.interval)}   "
                f"query loss {report.diagnostics['query_loss']:.3f}"
            )
            if stop.requested and not trainer.done:
                raise KeyboardInterrupt
