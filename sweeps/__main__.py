"""Command line: studies that are written in YAML."""

from pathlib import Path
from typing import Any

import click

from sweeps.engine.command_line import start, study_options
from sweeps.engine.study import read_study


@click.group()
def main() -> None:
    """Run sweeps."""


@main.command()
@click.argument("study_file", type=click.Path(path_type=Path))
@study_options
def run(study_file: Path, **options: Any) -> None:
    """Run the study in STUDY_FILE. The same command again goes on where it stopped."""
    start(read_study(study_file), **options)


if __name__ == "__main__":
    main(prog_name="python -m sweeps")
