"""`memmeta sweep`."""

from typing import Any

import click

from memmeta.command_line import Command
from sweeps.engine.command_line import start, study_options
from sweeps.engine.study.find import find_study


@click.command(cls=Command, epilog="Example: memmeta sweep cifar_fs --trials 32 --data-root data")
@click.argument("study")
@study_options
def sweep(study: str, **options: Any) -> None:
    """Run the sweep of STUDY, or continue it if it was stopped.

    STUDY is the name of a study of memmeta (cifar_fs), or a file with a study: my_study.py or
    my_study.yaml.
    """
    start(find_study(study), **options)
