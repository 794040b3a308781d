"""The command-line options that say where sweeps and their results are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

storage_option = click.option(
    "--storage",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    envvar="MEMMETA_STORAGE",
    show_envvar=True,
    help="Folder of all sweeps, with their journals and checkpoints, and mlflow.db.",
)


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where the results are."""
    for decorate in (
        click.option(
            "--tracking-uri",
            envvar="MLFLOW_TRACKING_URI",
            show_envvar=True,
            help="MLflow store or server, instead of mlflow.db in the storage folder.",
        ),
        storage_option,
    ):
        command = decorate(command)
    return command
