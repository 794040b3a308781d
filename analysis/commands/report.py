"""`memmeta report`."""

from pathlib import Path

import click

from analysis.command_line import chosen_sweep, say, store_arguments
from analysis.display.progress import progress
from memmeta.command_line import Command
from memmeta.system.units import Size
from sweeps.engine.stores.options import store_options
from sweeps.engine.stores.store import tracking_store


@click.command(cls=Command, epilog="Example: memmeta report cifar_fs --out report")
@store_options
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
    from analysis.report.build import make_report
    from analysis.statistics.region import parse_region

    if (study is None) == (trials_csv is None):
        raise click.UsageError("give either STUDY or --trials-csv")
    if trials_csv:
        sweep, source = read_trials(trials_csv), ["--trials-csv", str(trials_csv)]
    else:
        assert study is not None
        sweep = chosen_sweep(study, storage, tracking_uri)
        source = [sweep.name, *store_arguments(storage, tracking_uri)]
    with progress(sweep.name) as begin:
        make_report(
            sweep,
            out,
            reference_memory=reference_memory,
            region=parse_region(within),
            source=source,
            upload_to=None if trials_csv else tracking_store(storage, tracking_uri),
            say=say,
            on_step=begin,
        )
    click.echo(f"wrote {out / 'report.html'}")
