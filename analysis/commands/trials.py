"""`memmeta trials`."""

import json
from pathlib import Path

import click
from rich.console import Console

from analysis.command_line import chosen_sweep, study_argument
from analysis.display import trial_list
from memmeta.command_line import Command, as_json_option


@click.command(cls=Command, epilog="Example: memmeta trials cifar_fs --storage runs")
@study_argument
@as_json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print the columns of a report's trials.csv.")
def trials(
    study: str, storage: Path, tracking_uri: str | None, as_json: bool, as_csv: bool
) -> None:
    """List all trials of STUDY.

    Trials of stages explore and search come first, from best to worst. Trials of confirm (fresh
    seeds), tune and grid follow and have no rank.
    """
    if as_json and as_csv:
        raise click.UsageError("give only one of --json and --csv")
    sweep = chosen_sweep(study, storage, tracking_uri)
    if as_json:
        click.echo(json.dumps(trial_list.rows(sweep), indent=1))
    elif as_csv:
        # Imports Optuna.
        from analysis.records.trial_table import trials_csv

        click.echo(trials_csv(sweep), nl=False)
    else:
        trial_list.show(Console(highlight=False, markup=False, emoji=False), sweep)
