"""Command line of the learner."""

import click

import memmeta.system.interrupts  # noqa: F401
from memmeta.command_line import Group, run_command
from memmeta.commands.data import data, download_before
from memmeta.commands.evaluate import evaluate
from memmeta.commands.memory import memory
from memmeta.commands.train import train


@click.group(cls=Group)
def main() -> None:
    """Memory-reduced meta-learning: train and evaluate few-shot learners."""


for command in (train, evaluate, memory, data):
    main.add_command(command)
main.add_command(download_before, "download")


if __name__ == "__main__":
    run_command(main, "python -m memmeta")
