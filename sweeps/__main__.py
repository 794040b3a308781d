"""Command line: run studies written in YAML, and check the machine or cluster."""

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

import memmeta.system.interrupts  # noqa: F401
from memmeta.command_line import Group, run_command
from memmeta.system.files import resolved
from sweeps.engine.command_line import start, study_options
from sweeps.engine.execution.doctor import examine, show
from sweeps.engine.run import quietly
from sweeps.engine.stores.store import default_uri
from sweeps.engine.study.study import read_study

_LOCATION_OPTIONS = ("data_root", "cache", "storage", "tracking_uri")
"""Options of `run` that doctor has, too."""


@click.group(cls=Group)
def main() -> None:
    """Run sweeps."""


@main.command()
@click.argument("study_file", type=click.Path(path_type=Path))
@study_options
def run(study_file: Path, **options: Any) -> None:
    """Run the study in STUDY_FILE. Run the same command again to continue."""
    start(read_study(study_file), **options)


@main.command(params=[option for option in run.params if option.name in _LOCATION_OPTIONS])
def doctor(data_root: Path, cache: Path | None, storage: Path, tracking_uri: str | None) -> None:
    """Check that this machine, or the cluster it is connected to, is ready for a sweep.

    The exit code is 1 if any check failed.
    """
    storage = resolved(storage)
    uri = tracking_uri or default_uri(storage)
    with quietly():
        checks = examine(resolved(data_root), cache and resolved(cache), storage, uri)
        failed = show(Console(highlight=False), checks)
    sys.exit(failed)


if __name__ == "__main__":
    run_command(main, "python -m sweeps")
