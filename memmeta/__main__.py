"""The program `memmeta`: a group of commands that are found by their entry points."""

from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn

import click
from click.exceptions import NoSuchCommand

import memmeta.system.interrupts  # noqa: F401
from memmeta.command_line import Group, run_command

_SECTIONS = {
    "Learner": {
        "train": "Train one config.",
        "evaluate": "Score a trained model on test episodes.",
        "predict": "Classify your own images with a trained model.",
        "memory": "Show the peak memory of a step for all algorithms.",
        "data": "List and download data sets.",
    },
    "Sweeps": {
        "sweep": "Run a sweep, or continue it.",
        "sweeps": "List sweeps, or remove one.",
        "doctor": "Check that this machine or cluster is ready for a sweep.",
    },
    "Results": {
        "trials": "List the trials of a sweep.",
        "report": "Write a report of a sweep.",
        "compare": "Compare sweeps side by side.",
        "export": "Write the best configs of a sweep to a file.",
        "verify": "Test the results in an exported file with a fresh seed.",
    },
}
"""The commands in the order of the help, which does not import them: that takes seconds."""

_EARLIER_NAMES = ("download",)
"""Names of earlier versions. They work, but the help does not list them."""


class EntryPointGroup(Group):
    """A group whose commands are the entry points of `memmeta.commands`.

    A command is imported when it is called. Any installed package can add commands; the help lists
    them in a section of their own.
    """

    @cached_property
    def _entry_points(self) -> Mapping[str, EntryPoint]:
        return {point.name: point for point in entry_points(group="memmeta.commands")}

    @cached_property
    def _sections(self) -> Mapping[str, Mapping[str, str]]:
        """The short help of each command, by the sections of the help."""
        own = {name for section in _SECTIONS.values() for name in section}
        others = sorted(self._entry_points.keys() - {*own, *_EARLIER_NAMES})
        return {**_SECTIONS, "Other packages": {name: self._short_help(name) for name in others}}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names of all commands, in the order of the help."""
        return [name for section in self._sections.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command. None if there is no such command."""
        if cmd_name not in self._entry_points:
            return None
        command: click.Command = self._entry_points[cmd_name].load()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name.

        Raises:
            NoSuchCommand: there is none; the error suggests similar names.
        """
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as error:
            names = self.list_commands(ctx)
            raise NoSuchCommand(error.command_name, possibilities=names, ctx=ctx) from None

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the sections of the help that list the commands."""
        for title, section in self._sections.items():
            if section:
                with formatter.section(title):
                    formatter.write_dl([*section.items()])

    def _short_help(self, name: str) -> str:
        """The short help of a command of another package."""
        try:
            command: click.Command = self._entry_points[name].load()
        except Exception as error:  # a broken package must not break the help
            return f"cannot be imported ({error})"
        return command.get_short_help_str(limit=60)


@click.group(cls=EntryPointGroup, epilog="Example: memmeta sweep glyphs --trials 4")
@click.version_option(package_name="memmeta", message="%(package)s %(version)s")
def main() -> None:
    """Memory-reduced meta-learning: train few-shot learners, and search their hyperparameters.

    memmeta COMMAND --help describes a command and shows an example.
    """


def run() -> NoReturn:
    """Run the program `memmeta`."""
    run_command(main, "memmeta")


if __name__ == "__main__":
    run_command(main, "python -m memmeta")
