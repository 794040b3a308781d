"""`memmeta verify`."""

from pathlib import Path

import click
from rich.console import Console

from memmeta.command_line import (
    Command,
    cache_option,
    data_root_option,
    device_option,
    threads_option,
)
from memmeta.errors import FailedError


@click.command(cls=Command, epilog="Example: memmeta verify best.yaml --data-root data")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--rank", default=1, show_default=True, help="Rank of the run in the file.")
@data_root_option
@cache_option
@device_option
@threads_option
@click.option(
    "--seed", type=click.IntRange(min=0), help="Training seed. Default: one above all seeds used."
)
def verify(
    file: Path,
    rank: int,
    data_root: Path,
    cache: Path | None,
    device: str | None,
    threads: int | None,
    seed: int | None,
) -> None:
    """Verify a run of FILE, which `export` wrote, with a fresh training seed.

    The run is trained again. Its results are verified if the metric lies within the stated 95 %
    prediction interval and the peak memory equals the stated one: exactly on the same hardware,
    within 1 % on other hardware.

    Exit codes: 0 if verified, 1 if not, 2 for bad input, 130 if stopped by Ctrl-C, 143 by SIGTERM.
    """
    # Imports PyTorch, which takes seconds.
    from analysis import verify as verifying

    claim = verifying.read_claim(file, rank)
    deviations = verifying.verify(
        claim,
        Console(highlight=False),
        data_root=data_root,
        cache=cache,
        device=device,
        threads=threads,
        seed=seed,
    )
    if deviations:
        raise FailedError(f"not verified: {'; '.join(deviations)}")
    click.echo("verified")
