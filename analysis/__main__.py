"""Command line of the analysis: `python -m analysis COMMAND`."""

import json
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

import memmeta.system.interrupts  # noqa: F401
from analysis.display import trial_list
from analysis.display.progress import progress
from analysis.records.store import attach
from analysis.records.trials import Sweep, read_sweep
from memmeta.command_line import (
    Group,
    cache_option,
    data_root_option,
    device_option,
    run_command,
    threads_option,
)
from memmeta.errors import FailedError, InputError
from memmeta.system.units import Size
from sweeps.engine.stores.masking import masked
from sweeps.engine.stores.options import storage_option
from sweeps.engine.stores.store import default_uri


def _store_options(command: Callable[..., Any]) -> Callable[..., Any]:
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


def _study_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument STUDY and the options that say where its results are."""
    return click.argument("study")(_store_options(command))


_as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON list of flat objects."
)


@click.group(cls=Group)
def main() -> None:
    """Show, compare, report, export and verify the results of sweeps.

    STUDY is the name of a study (cifar_fs), which selects its most recent sweep, or the full name
    of a sweep (cifar_fs-60steps-seed0).
    """


@main.command()
@_study_argument
@_as_json
@click.option("--csv", "as_csv", is_flag=True, help="Print the columns of trials.csv of a report.")
def trials(
    study: str, storage: Path, tracking_uri: str | None, as_json: bool, as_csv: bool
) -> None:
    """List all trials of STUDY.

    Trials of stages explore and search come first, from best to worst. Trials of confirm (fresh
    seeds), tune and grid follow and have no rank.
    """
    if as_json and as_csv:
        raise click.UsageError("give only one of --json and --csv")
    sweep = _read(study, storage, tracking_uri)
    if as_json:
        click.echo(json.dumps(trial_list.rows(sweep), indent=1))
    elif as_csv:
        from analysis.records.trial_table import trials_csv  # imports Optuna

        click.echo(trials_csv(sweep), nl=False)
    else:
        trial_list.show(Console(highlight=False, markup=False, emoji=False), sweep)


@main.command()
@_study_argument
@click.option(
    "--top",
    type=click.IntRange(min=1),
    help="Maximum number of configs. Default: 3; with --pareto: the whole front.",
)
@click.option(
    "--max-memory", type=Size(), help="Only trials with at most this peak memory, such as 200MiB."
)
@click.option("--pareto", is_flag=True, help="Only the Pareto front of metric and peak memory.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("best.yaml"),
    show_default=True,
    help="Output file, .yaml or .json; an existing file is replaced.",
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
    """Write the best configs of STUDY to a file for `python -m memmeta train`.

    The configs are selected from stages explore and search, and sorted from best to worst. The
    file contains their results, the results for fresh seeds of stage confirm, and a prediction
    for one more seed, which `verify` tests.
    """
    from analysis import export as exporting

    exporting.check_suffix(out)
    sweep = _read(study, storage, tracking_uri)
    if top is None and not pareto:
        top = exporting.TOP
    selection = exporting.Selection(top, max_memory, pareto)
    best = exporting.best_runs(sweep, selection)
    store = _store_arguments(storage, tracking_uri)
    command = ["export", sweep.name, *selection.options, "--out", str(out), *store]
    exporting.write(best, sweep, selection, out, ["python", "-m", "analysis", *command])
    if top and len(best.runs) < top:
        conditions = "".join(f", {condition}," for condition in selection.conditions)
        count = f"only {len(best.runs)} different configs of explore and search"
        click.echo(f"complete trials{conditions} of {sweep.name}: {count}", err=True)
    click.echo(f"wrote {out}; train the best: python -m memmeta train {out}")


@main.command()
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


@main.command()
@_store_options
@click.argument("studies", nargs=-1, required=True, metavar="STUDY...")
@_as_json
def compare(
    studies: tuple[str, ...], storage: Path, tracking_uri: str | None, as_json: bool
) -> None:
    """Compare studies side by side.

    Prints one column per STUDY and algorithm: result of the best trial of explore and search,
    result with fresh seeds of stage confirm, memory and time. Names the conditions in which the
    sweeps differ: data, learner, budget, memory limit and hardware.
    """
    from analysis import compare as comparing

    sweeps = [_read(study, storage, tracking_uri) for study in studies]
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


@main.command()
@_store_options
@click.argument("study", required=False)
@click.option(
    "--trials-csv",
    type=click.Path(path_type=Path),
    help="Read trials.csv of an earlier report instead of STUDY.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("report"),
    show_default=True,
    help="Output folder; files of the same name are replaced.",
)
@click.option(
    "--reference-memory",
    type=Size(),
    default="1GiB",
    show_default=True,
    help="Memory of the hypervolume's reference; use the same for all sweeps that you compare.",
)
@click.option(
    "--within",
    multiple=True,
    metavar="NAME=LOW,HIGH",
    help="Analyse sensitivity only in this range of NAME, such as below the step size from which "
    "runs diverge. Can be repeated for other names.",
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
    """Write a report of STUDY: an HTML page, its figures with their data, and all trials as CSV.

    The page, report.html, is self-contained. It is also uploaded to the sweep's run in MLflow.
    """
    # These import scikit-learn, statsmodels and Matplotlib, which takes seconds.
    from analysis.records.trial_table import read_trials
    from analysis.report.build import build_report, write_report
    from analysis.statistics.region import parse_region

    if (study is None) == (trials_csv is None):
        raise click.UsageError("give either STUDY or --trials-csv")
    if trials_csv:
        sweep, source = read_trials(trials_csv), ["--trials-csv", str(trials_csv)]
    else:
        assert study is not None
        sweep = _read(study, storage, tracking_uri)
        source = [sweep.name, *_store_arguments(storage, tracking_uri)]
    options = ["--reference-memory", str(reference_memory)]
    options += [word for text in within for word in ("--within", text)]
    command = shlex.join(["python", "-m", "analysis", "report", *source, *options])
    with progress(sweep.name) as begin:
        page = build_report(sweep, reference_memory, command, parse_region(within), begin)
        begin("Drawing")
        written = write_report(page, sweep, out)
    if not trials_csv:
        uri = tracking_uri or default_uri(storage)
        try:
            attach(uri, sweep.trials[0].parent_run_id, out, written)
        except InputError as error:
            click.echo(f"not uploaded to the sweep's run: {error.message}", err=True)
    click.echo(f"wrote {out / 'report.html'}")


def _store_arguments(storage: Path, tracking_uri: str | None) -> list[str]:
    """The store options of the command line, with passwords masked."""
    if tracking_uri:
        return ["--tracking-uri", masked(tracking_uri)]
    return ["--storage", str(storage)]


def _read(study: str, storage: Path, tracking_uri: str | None) -> Sweep:
    with progress(f"Reading {study}"):
        sweep = read_sweep(tracking_uri or default_uri(storage), study)
    if sweep.alternatives:
        alternatives = ", ".join(sweep.alternatives)
        click.echo(
            f"{study}: using {sweep.name}; to select another, give its full name: {alternatives}",
            err=True,
        )
    return sweep


if __name__ == "__main__":
    run_command(main, "python -m analysis")
