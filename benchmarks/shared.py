"""Command-line options that the benchmark scripts share."""

from pathlib import Path

import click

out_option = click.option(
    "--out", type=click.Path(path_type=Path), default=Path("docs"), show_default=True,
    help="Output folder.",
)  # fmt: skip
