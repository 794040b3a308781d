"""`memmeta sweep`."""

from pathlib import Path
from typing import Any

import click

from memmeta.command_line import Command
from sweeps.engine.command_line import start, study_options
from sweeps.engine.study.study import read_study


@click.command(cls=Command)
@click.argument("study_file", type=click.Path(path_type=Path))
@study_options
def sweep(study_file: Path, **options: Any) -> None:
    """Run the study in STUDY_FILE. Run the same command again to continue."""
    start(read_study(study_file), **options)
