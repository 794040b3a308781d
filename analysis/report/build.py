"""Build the report of a sweep from its sections, and write it."""

import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from analysis.records.store import attach
from analysis.records.trial_table import write_trials
from analysis.records.trials import Sweep
from analysis.report.html import write_page
from analysis.report.page import Page, Section
from analysis.report.sections import (
    confirmed,
    grid,
    memory_growth,
    search,
    sensitivity,
    trade_off,
    what_was_run,
)
from analysis.statistics.region import Region
from memmeta.errors import InputError
from memmeta.system.units import exact_size


def make_report(
    sweep: Sweep,
    folder: Path,
    *,
    reference_memory: int,
    region: Region,
    source: Sequence[str],
    upload_to: str | None,
    say: Callable[[str], None],
    on_step: Callable[[str], None] = lambda _: None,
) -> None:
    """Build and write the report of a sweep, and upload it to the sweep's run in MLflow.

    Args:
        sweep: the sweep.
        folder: output folder; files of the same name are replaced.
        reference_memory: memory of the hypervolume's reference, in bytes.
        region: region of the space for the sensitivity analysis; empty for the whole space.
        source: words of the command line that name the sweep and its store, for the footer.
        upload_to: the MLflow store; None: do not upload.
        say: called with a line if the upload fails.
        on_step: called with a title before each step.

    Raises:
        InputError: the sweep has no trials, the region is not within its space, or a file cannot
            be written.
    """
    options = ["--reference-memory", exact_size(reference_memory)]
    for name, (low, high) in region.items():
        options += ["--within", f"{name}={low:.12g},{high:.12g}"]
    command = shlex.join(["memmeta", "report", *source, *options])
    page = build_report(sweep, reference_memory, command, region, on_step)
    on_step("Drawing")
    written = write_report(page, sweep, folder)
    if upload_to:
        try:
            attach(upload_to, sweep.trials[0].parent_run_id, folder, written)
        except InputError as error:
            say(f"not uploaded to the sweep's run: {error.message}")


def build_report(
    sweep: Sweep,
    reference_memory: int,
    command: str,
    region: Region,
    on_step: Callable[[str], None] = lambda _: None,
) -> Page:
    """Build the report of a sweep.

    Args:
        sweep: a sweep with at least one trial.
        reference_memory: memory of the hypervolume's reference, in bytes.
        command: the command line that asked for the report, for its footer.
        region: region of the space for the sensitivity analysis; empty for the whole space.
        on_step: called with a title before each step, since some steps take a while.

    Raises:
        InputError: the sweep has no trials, or the region is not within its space.
    """
    if not sweep.trials:
        raise InputError(f"{sweep.name}: has no trials")
    data = sweep.trials[0].config.data
    sections = _sections(sweep, reference_memory, region, on_step)
    return Page(
        title=sweep.study,
        lead=f"Report of the sweep {sweep.name}: {data.name}, {len(sweep.trials)} trials.",
        sections=[section for section in sections if section],
        footer=f"Made by: {command}. All trials are in trials.csv, from which this page can be "
        "redrawn; the data of each figure are in data/.",
    )


def _sections(
    sweep: Sweep, reference_memory: int, region: Region, on_step: Callable[[str], None]
) -> Iterable[Section | None]:
    builders: dict[str, Callable[[], Section | None]] = {
        what_was_run.TITLE: lambda: what_was_run.section(sweep),
        sensitivity.TITLE: lambda: sensitivity.section(sweep, region, on_step),
        grid.TITLE: lambda: grid.section(sweep),
        memory_growth.TITLE: lambda: memory_growth.section(sweep),
        trade_off.TITLE: lambda: trade_off.section(sweep, reference_memory),
        search.TITLE: lambda: search.section(sweep),
        confirmed.TITLE: lambda: confirmed.section(sweep),
    }
    for title, build_section in builders.items():
        on_step(title)
        yield build_section()


def write_report(report: Page, sweep: Sweep, folder: Path) -> list[Path]:
    """Write the page with its figures and their data, and all trials as `trials.csv`.

    Args:
        report: the page from `build_report`.
        sweep: its sweep.
        folder: output folder; files of the same name are replaced.

    Returns:
        The files that were written.

    Raises:
        InputError: a file cannot be written.
    """
    written, trials = write_page(report, folder), folder / "trials.csv"
    write_trials(sweep, trials)
    return [*written, trials]
