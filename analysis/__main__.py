"""Command line: the trials of a study, and the best of them as a file to train from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from analysis import export as exporting
from analysis import table
from analysis.trials import Sweep, read_sweep
from sweeps.engine.store import default_uri, without_credentials


def _of_study(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command takes: a study, and where its results are."""
    for decorate in (
        click.option("--tracking-uri", help="MLflow store or server, instead of the folder's."),
        click.option(
            "--storage",
            type=click.Path(path_type=Path),
            default=Path("runs"),
            show_default=True,
            help="Folder of the sweep, with its mlflow.db.",
        ),
        click.argument("study"),
    ):
        command = decorate(command)
    return command


@click.group()
def main() -> None:
    """Look at the results of sweeps.

    STUDY names a study, for the most recently started sweep of it (cifar_fs), or one sweep in
    full (cifar_fs-60steps-seed0).
    """


@main.command()
@_of_study
@click.option("--json", "as_json", is_flag=True, help="A list of flat objects, for machines.")
def trials(study: str, storage: Path, tracking_uri: str | None, as_json: bool) -> None:
    """List all trials of STUDY.

    Those of stages explore and search come first, from the best on. Those of confirm, with fresh
    seeds, and of grid follow: nothing ranks them.
    """
    sweep = _read(study, storage, tracking_uri)
    if as_json:
        click.echo(json.dumps(table.rows(sweep), indent=1))
    else:
        table.show(Console(highlight=False, markup=False, emoji=False), sweep)


@main.command()
@_of_study
@click.option(
    "--top", type=click.IntRange(min=1), default=3, show_default=True, help="How many trials."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("best.yaml"),
    show_default=True,
    help="The file; one that exists is replaced.",
)
def export(study: str, storage: Path, tracking_uri: str | None, top: int, out: Path) -> None:
    """Write the best trials of STUDY to a YAML file that `python -m memmeta train` takes.

    They are chosen among those of stages explore and search.
    """
    sweep = _read(study, storage, tracking_uri)
    best = exporting.best_runs(sweep, top)
    place = ["--storage", str(storage)]
    if tracking_uri:
        place = ["--tracking-uri", without_credentials(tracking_uri)]
    command = ["export", sweep.name, "--top", str(top), "--out", str(out), *place]
    exporting.write(best, sweep, out, ["python", "-m", "analysis", *command])
    if len(best.runs) < top:
        only = f"only {len(best.runs)} of explore and search"
        click.echo(f"complete trials of {sweep.name}: {only}", err=True)
    click.echo(f"wrote {out}; train the best: python -m memmeta train {out}")


def _read(study: str, storage: Path, tracking_uri: str | None) -> Sweep:
    sweep = read_sweep(tracking_uri or default_uri(storage), study)
    if sweep.others:
        others = ", ".join(sweep.others)
        click.echo(f"{study}: this is {sweep.name}; name another in full: {others}", err=True)
    return sweep


if __name__ == "__main__":
    main(prog_name="python -m analysis")
