"""Command line: trials, reports, the best configs as a file, and that file put to the test."""

import json
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from analysis.progress import progress
from analysis.records import table
from analysis.records.store import attach
from analysis.records.trials import Sweep, read_sweep
from memmeta.command_line import (
    cache_option,
    data_root_option,
    device_option,
    run_command,
    threads_option,
)
from memmeta.errors import InputError
from memmeta.system.sizes import Size
from sweeps.engine.stores.masking import masked
from sweeps.engine.stores.options import storage_option
from sweeps.engine.stores.store import default_uri


def _of_store(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the results are."""
    for decorate in (
        click.option(
            "--tracking-uri",
            envvar="MLFLOW_TRACKING_URI",
            show_envvar=True,
            help="MLflow store or server, instead of the folder's.",
        ),
        storage_option,
    ):
        command = decorate(command)
    return command


def _of_study(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command about one study takes: the study, and where its results are."""
    return click.argument("study")(_of_store(command))


_as_json = click.option(
    "--json", "as_json", is_flag=True, help="A list of flat objects, for machines."
)


@click.group()
def main() -> None:
    """Look at the results of sweeps, compare them, and put what they say to the test.

    STUDY names a study, for the sweep of it that ran last (cifar_fs), or one sweep in full
    (cifar_fs-60steps-seed0).
    """


@main.command()
@_of_study
@_as_json
def trials(study: str, storage: Path, tracking_uri: str | None, as_json: bool) -> None:
    """List all trials of STUDY.

    Those of stages explore and search come first, from the best on. Those of confirm, with fresh
    seeds, of tune and of grid follow: nothing ranks them.
    """
    sweep = _read(study, storage, tracking_uri)
    if as_json:
        click.echo(json.dumps(table.rows(sweep), indent=1))
    else:
        table.show(Console(highlight=False, markup=False, emoji=False), sweep)


@main.command()
@_of_study
@click.option(
    "--top", type=click.IntRange(min=1), help="How many configs at most; default: 3, or the front."
)
@click.option("--max-memory", type=Size(), help="Only trials with a peak within it: 200MiB.")
@click.option("--pareto", is_flag=True, help="The Pareto front of the metric and peak memory.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("best.yaml"),
    show_default=True,
    help="The file, .yaml or .json; one that exists is replaced.",
)
def export(
    study: str,
    storage: Path,
    tracking_uri: str | None,
    top: int | None,
    max_memory: int | None,
    pareto: bool,
    out: Path,
) -> None:
    """Write the best configs of STUDY to a file that `python -m memmeta train` takes.

    They are chosen among those of stages explore and search, and stand in the file from the best
    on. It says what they gave, what fresh seeds of stage confirm gave for them, and what one more
    is expected to give, which `verify` puts to the test.
    """
    from analysis import export as exporting

    exporting.check_suffix(out)
    sweep = _read(study, storage, tracking_uri)
    if top is None and not pareto:
        top = exporting.TOP
    selection = exporting.Selection(top, max_memory, pareto)
    best = exporting.best_runs(sweep, selection)
    place = _place(storage, tracking_uri)
    command = ["export", sweep.name, *selection.options, "--out", str(out), *place]
    exporting.write(best, sweep, selection, out, ["python", "-m", "analysis", *command])
    if top and len(best.runs) < top:
        only = f"only {len(best.runs)} different configs of explore and search"
        which = "".join(f", {condition}," for condition in selection.conditions)
        click.echo(f"complete trials{which} of {sweep.name}: {only}", err=True)
    click.echo(f"wrote {out}; train the best: python -m memmeta train {out}")


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--rank", default=1, show_default=True, help="Which run of the file.")
@data_root_option
@cache_option
@device_option
@threads_option
@click.option(
    "--seed", type=click.IntRange(min=0), help="Of the training; default: one after all before."
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
    """Put a run of FILE to the test.

    FILE is what `export` wrote. The run is trained with a fresh seed, and what FILE says holds if
    the metric is in the stated 95 % interval and the peak memory is the stated one: to the byte on
    the same hardware, else within 1 %. Exit code 0 if it holds, 1 if not, 2 for bad input, 130 if
    stopped by Ctrl-C, 143 by SIGTERM.
    """
    # PyTorch takes seconds.
    from analysis import verify as verifying

    claim = verifying.read_claim(file, rank)
    complaints = verifying.verify(
        claim,
        Console(highlight=False),
        data_root=data_root,
        cache=cache,
        device=device,
        threads=threads,
        seed=seed,
    )
    if complaints:
        raise click.ClickException(f"not verified: {'; '.join(complaints)}")
    click.echo("verified")


@main.command()
@_of_store
@click.argument("studies", nargs=-1, required=True, metavar="STUDY...")
@_as_json
def compare(
    studies: tuple[str, ...], storage: Path, tracking_uri: str | None, as_json: bool
) -> None:
    """Compare studies side by side.

    A row for each STUDY and each algorithm in it: what the best trial of explore and search gave,
    what fresh seeds of stage confirm say, memory and time. What else the sweeps differ in is said:
    data, learner, budget, memory limit and machine.
    """
    from analysis.report import compare as comparing

    sweeps = [_read(study, storage, tracking_uri) for study in studies]
    rows = comparing.rows(sweeps)
    differences = comparing.differences(sweeps)
    # A terminal's lines are wrapped by Rich; what stands beside JSON is for standard error.
    console = Console(stderr=as_json, highlight=False, markup=False, emoji=False)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        comparing.show(console, rows)
    if differences:
        console.print(differences, soft_wrap=as_json)


@main.command()
@_of_store
@click.argument("study", required=False)
@click.option(
    "--trials-csv",
    type=click.Path(path_type=Path),
    help="Instead of STUDY: trials.csv of an earlier report.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("report"),
    show_default=True,
    help="Folder; files of the same names are replaced, all others stay.",
)
@click.option(
    "--reference-memory",
    type=Size(),
    default="1GiB",
    show_default=True,
    help="Where the hypervolume ends: the same for all sweeps that are to be compared.",
)
@click.option(
    "--within",
    multiple=True,
    metavar="NAME=LOW,HIGH",
    help="Sensitivity in a part of the space only, such as below a step size from which runs "
    "break down; once for each NAME.",
)
def report(
    study: str | None,
    trials_csv: Path | None,
    storage: Path,
    tracking_uri: str | None,
    out: Path,
    reference_memory: int,
    within: tuple[str, ...],
) -> None:
    """Write a report of STUDY: a page with its figures, their data, and all trials as a table.

    The page, report.html, stands by itself. It is added to the sweep's run in MLflow, too.
    """
    # It fits models and draws, for which it needs what takes seconds to import.
    from analysis.records.trial_table import read_trials
    from analysis.report import report as reporting
    from analysis.statistics.part import parse_within

    if (study is None) == (trials_csv is None):
        raise click.UsageError("give either STUDY or --trials-csv")
    if trials_csv:
        sweep, asked = read_trials(trials_csv), ["--trials-csv", str(trials_csv)]
    else:
        assert study is not None
        sweep = _read(study, storage, tracking_uri)
        asked = [sweep.name, *_place(storage, tracking_uri)]
    options = ["--reference-memory", str(reference_memory)]
    options += [word for text in within for word in ("--within", text)]
    command = shlex.join(["python", "-m", "analysis", "report", *asked, *options])
    with progress(sweep.name) as begin:
        page = reporting.build(sweep, reference_memory, command, parse_within(within), begin)
        begin("Drawing")
        written = reporting.write(page, sweep, out)
    if not trials_csv:
        uri = tracking_uri or default_uri(storage)
        try:
            attach(uri, sweep.trials[0].parent_run_id, out, written)
        except InputError as error:
            click.echo(f"not added to the sweep's run: {error.message}", err=True)
    click.echo(f"wrote {out / 'report.html'}")


def _place(storage: Path, tracking_uri: str | None) -> list[str]:
    """The options that say where the results are."""
    if tracking_uri:
        return ["--tracking-uri", masked(tracking_uri)]
    return ["--storage", str(storage)]


def _read(study: str, storage: Path, tracking_uri: str | None) -> Sweep:
    with progress(f"Reading {study}"):
        sweep = read_sweep(tracking_uri or default_uri(storage), study)
    if sweep.others:
        others = ", ".join(sweep.others)
        click.echo(f"{study}: this is {sweep.name}; name another in full: {others}", err=True)
    return sweep


if __name__ == "__main__":
    run_command(main, "python -m analysis")
