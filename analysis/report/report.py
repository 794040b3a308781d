"""A study as one page: what was run, what matters, what is best, and how sure that is."""

from collections.abc import Callable, Iterable
from pathlib import Path

from analysis.records.trial_table import write_trials
from analysis.records.trials import Sweep
from analysis.report import page
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
from analysis.statistics.part import Within
from memmeta.errors import InputError


def build(
    sweep: Sweep,
    reference_memory: int,
    command: str,
    within: Within,
    on_step: Callable[[str], None] = lambda _: None,
) -> Page:
    """The report of a sweep.

    Args:
        sweep: with at least one trial.
        reference_memory: bytes at the worse corner of the hypervolume.
        command: the command line that asked for it, for the footer.
        within: the part of the space that sensitivity is of; empty: all.
        on_step: called with a title before each step; some steps take a while.

    Raises:
        InputError: the sweep has no trials, or the part is none of its space.
    """
    if not sweep.trials:
        raise InputError(f"{sweep.name}: has no trials")
    data = sweep.trials[0].config.data
    return Page(
        title=sweep.study,
        lead=f"Report of the sweep {sweep.name}: {data.name}, {len(sweep.trials)} trials.",
        sections=[
            section for section in _sections(sweep, reference_memory, within, on_step) if section
        ],
        footer=f"Made by: {command}. All trials are in trials.csv, from which this page can be "
        "drawn again; the data of each figure is in data/.",
    )


def _sections(
    sweep: Sweep, reference_memory: int, within: Within, on_step: Callable[[str], None]
) -> Iterable[Section | None]:
    made: dict[str, Callable[[], Section | None]] = {
        what_was_run.TITLE: lambda: what_was_run.section(sweep),
        sensitivity.TITLE: lambda: sensitivity.section(sweep, within, on_step),
        grid.TITLE: lambda: grid.section(sweep),
        memory_growth.TITLE: lambda: memory_growth.section(sweep),
        trade_off.TITLE: lambda: trade_off.section(sweep, reference_memory),
        search.TITLE: lambda: search.section(sweep),
        confirmed.TITLE: lambda: confirmed.section(sweep),
    }
    for title, make in made.items():
        on_step(title)
        yield make()


def write(report: Page, sweep: Sweep, folder: Path) -> list[Path]:
    """Write the page, its figures, their data, and all trials into `folder`.

    Returns:
        What was written.

    Raises:
        InputError: the folder cannot be written.
    """
    written, trials = page.write(report, folder), folder / "trials.csv"
    write_trials(sweep, trials)
    return [*written, trials]
