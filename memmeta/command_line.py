"""Shared by all command lines: options, signals, the device, errors in one line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import click
from pydantic import ValidationError

from memmeta.config import described
from memmeta.data.own import looking_in
from memmeta.errors import DivergedError, FailedError, InputError, MessageError, did_you_mean
from memmeta.registry import is_import_path
from memmeta.system.files import usable_path
from memmeta.system.plain_text import degrade_output
from memmeta.system.stopping import STOP, heed_signals

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
    type=click.IntRange(1, 1024),
    help="CPU threads; default: the number that an exported run states, else all.",
)

as_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON list of flat objects."
)

trust_code_option = click.option(
    "--trust-code", is_flag=True, help="Run the code that the file names by import paths."
)


class OneOf(click.Choice[str]):
    """A `click.Choice` that suggests the choice that is most similar to a misspelled one."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """The message for a value that is not a choice."""
        message = super().get_invalid_choice_message(value, ctx).removesuffix(".")
        return f"{message}{did_you_mean(str(value), self.choices)}"


class NameOf(OneOf):
    """Names of objects in a `Registry`, which suggests similar ones; or any import path."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name. Whoever looks the object up refuses a path that leads nowhere."""
        return value if is_import_path(value) else super().convert(value, param, ctx)


class _BadInput(click.ClickException):
    """An `InputError` as Click shows errors."""

    exit_code = 2


def _shown(error: MessageError) -> click.ClickException:
    """The error as Click shows errors."""
    kind = _BadInput if isinstance(error, InputError) else click.ClickException
    return kind(error.message)


class Command(click.Command):
    """A command that shows a `MessageError` like Click's own errors, and exits with its code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        places = ctx.params.get("data_root"), ctx.params.get("cache")
        try:
            self._check_paths(ctx)
            with looking_in(*places):
                return super().invoke(ctx)
        except MessageError as error:
            raise _shown(error) from None

    def _check_paths(self, ctx: click.Context) -> None:
        for option in self.params:
            value = ctx.params.get(option.name or "")
            if isinstance(value, Path):
                try:
                    usable_path(value)
                except ValueError as error:
                    raise InputError(f"{option.get_error_hint(ctx)}: {error}") from None


class Group(click.Group):
    """A group of commands of class `Command`."""

    command_class = Command


def run_command(
    command: click.Command, prog_name: str | None = None, obj: object = None
) -> NoReturn:
    """Run a command, and exit the process.

    In addition to Click: a signal stops the command in an orderly way, with a line that names the
    signal and exit code 130, 143 or 129 (see `memmeta.system.stopping`). Characters that the
    terminal cannot show are replaced.

    Args:
        command: the command.
        prog_name: its name in messages.
        obj: the object in its Click context.
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
    """Make scripts end with one line instead of a traceback if a config is not accepted."""
    before = sys.excepthook

    def one_line(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ValidationError):
            error = InputError(f"{error.title}: {described(error)}")
        if not isinstance(error, MessageError):
            before(kind, error, trace)
            return
        shown = _shown(error)
        shown.show()
        sys.exit(shown.exit_code)

    sys.excepthook = one_line


@contextmanager
def failures_in_one_line() -> Iterator[None]:
    """Report divergence and lack of memory in one line, with exit code 1."""
    # PyTorch takes seconds to import.
    from memmeta.memory import limits

    try:
        yield
    except DivergedError as error:
        raise FailedError(f"{error}; a smaller inner_lr or outer_lr may help") from None
    except (RuntimeError, MemoryError) as error:
        if not limits.is_out_of_memory(error):
            raise
        message = "out of memory; a smaller task_batch, or a chunk, may help"
        raise FailedError(message) from None
