"""`memmeta compare`."""

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from analysis.command_line import chosen_sweep
from memmeta.command_line import Command, as_json_option
from sweeps.engine.stores.options import store_options


@click.command(cls=Command, epilog="Example: memmeta compare cifar_fs fc100")
@store_options
@click.argument("studies", nargs=-1, required=True, metavar="STUDY...")
@as_json_option
def compare(
    studies: tuple[str, ...], storage: Path, tracking_uri: str | None, as_json: bool
) -> None:
    """Compare studies side by side.

    Prints one column per STUDY and algorithm: result of the best trial of explore and search,
    result with fresh seeds of stage confirm, memory and time. Names the conditions in which the
    sweeps differ: data, learner, budget, memory limit and hardware.
    """
    from analysis import compare as comparing

    sweeps = [chosen_sweep(study, storage, tracking_uri) for study in studies]
    rows = comparing.rows(sweeps)
    differences = comparing.differences(sweeps)
    # With --json, the differences go to standard error, unwrapped.
    console = Console(stderr=as_json, highlight=False, markup=False, emoji=False)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        comparing.show(console, rows)
    if differences:
        console.print(differences, soft_wrap=as_json)
