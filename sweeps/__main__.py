"""Command line: studies that are written in YAML, and a look at where they would run."""

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from memmeta.command_line import run_command
from sweeps.engine.command_line import start, study_options
from sweeps.engine.execution import doctor as checks
from sweeps.engine.run import quiet
from sweeps.engine.stores.store import default_uri
from sweeps.engine.study.study import read_study

_PLACES = ("data_root", "cache", "storage", "tracking_uri")
"""The options of a study that say where things are."""


@click.group()
def main() -> None:
    """Run sweeps."""


@main.command()
@click.argument("study_file", type=click.Path(path_type=Path))
@study_options
def run(study_file: Path, **options: Any) -> None:
    """Run the study in STUDY_FILE. The same command again goes on where it stopped."""
    start(read_study(study_file), **options)


@main.command(params=[option for option in run.params if option.name in _PLACES])
def doctor(data_root: Path, cache: Path | None, storage: Path, tracking_uri: str | None) -> None:
    """Check this machine, or the cluster it can see, for what a sweep needs.

    The exit code is 1 if anything failed.
    """
    quiet()
    storage = storage.resolve()
    uri = tracking_uri or default_uri(storage)
    found = checks.examine(data_root.resolve(), cache and cache.resolve(), storage, uri)
    sys.exit(checks.show(Console(highlight=False), found))


if __name__ == "__main__":
    run_command(main, "python -m sweeps")
