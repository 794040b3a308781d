"""Shared by the commands on results: where these are, and reading them with a progress bar."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from analysis.display.progress import progress
from analysis.records.trials import Sweep, read_sweep
from sweeps.engine.stores.masking import masked
from sweeps.engine.stores.options import store_options
from sweeps.engine.stores.store import default_uri


def study_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument STUDY and the options that say where its results are."""
    return click.argument("study")(store_options(command))


as_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON list of flat objects."
)


def say(text: str) -> None:
    """Print a line to standard error."""
    click.echo(text, err=True)


def store_arguments(storage: Path, tracking_uri: str | None) -> list[str]:
    """The store options of the command line, with passwords masked."""
    if tracking_uri:
        return ["--tracking-uri", masked(tracking_uri)]
    return ["--storage", str(storage)]


def chosen_sweep(study: str, storage: Path, tracking_uri: str | None) -> Sweep:
    """Read the sweep that STUDY selects, and name the others that it could have selected."""
    with progress(f"Reading {study}"):
        sweep = read_sweep(tracking_uri or default_uri(storage), study)
    if sweep.without_results:
        newer = ", ".join(sweep.without_results)
        say(f"{study}: without a result yet, so not used: {newer}")
    if sweep.alternatives:
        alternatives = ", ".join(sweep.alternatives)
        say(f"{study}: using {sweep.name}; to select another, give its full name: {alternatives}")
    return sweep
