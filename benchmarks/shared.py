"""What the scripts of this folder share."""

from pathlib import Path

import click

MIB = 2**20
COLOURS = ("#0072B2", "#E69F00", "#009E73")  # Okabe and Ito: distinct to colour-blind readers

out_option = click.option(
    "--out", type=click.Path(path_type=Path), default=Path("docs"), show_default=True,
    help="Folder for what is written.",
)  # fmt: skip
