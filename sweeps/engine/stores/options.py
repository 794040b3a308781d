"""The command-line option for the folder with the stores of all sweeps."""

from pathlib import Path

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
