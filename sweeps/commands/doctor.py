"""`memmeta doctor`."""

import sys
from pathlib import Path

import click
from rich.console import Console

from memmeta.command_line import Command
from memmeta.system.files import resolved
from sweeps.commands.sweep import sweep
from sweeps.engine.execution.doctor import examine, show
from sweeps.engine.run import quietly
from sweeps.engine.stores.store import tracking_store

_LOCATION_OPTIONS = ("data_root", "cache", "storage", "tracking_uri")
"""Options of `sweep` that doctor has, too."""


@click.command(
    cls=Command,
    params=[option for option in sweep.params if option.name in _LOCATION_OPTIONS],
    epilog="Example: memmeta doctor --data-root data --storage runs",
)
def doctor(data_root: Path, cache: Path | None, storage: Path, tracking_uri: str | None) -> None:
    """Check that this machine, or the cluster it is connected to, is ready for a sweep.

    The exit code is 1 if any check failed.
    """
    storage = resolved(storage)
    uri = tracking_store(storage, tracking_uri)
    with quietly():
        checks = examine(resolved(data_root), cache and resolved(cache), storage, uri)
        failed = show(Console(highlight=False), checks)
    sys.exit(failed)
