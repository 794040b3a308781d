"""The summary that a sweep prints at its end."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from memmeta.system.units import MIB, human_size
from sweeps.engine.display.table import best_table, unsolved
from sweeps.engine.ledger.entry import Entry
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.ledger.schedule import Schedule
from sweeps.engine.options import Options
from sweeps.engine.stores.masking import masked
from sweeps.engine.stores.store import default_uri, in_database

_UI = "http://127.0.0.1:5000"
"""The address of `mlflow ui`."""

_ENDED = {
    "pruned": "stopped early",
    "diverged": "diverged",
    "out_of_memory": "ran out of memory or would have",
}
"""How trials ended that did not complete, in words."""


def summary_metrics(ledger: Ledger, schedule: Schedule) -> dict[str, float]:
    """The metrics of a sweep for MLflow: number of trials, and results of the best one."""
    values: dict[str, float] = {"trials": schedule.done()}
    best = best_trial(ledger)
    if best:
        metrics, peak = best.reported["metrics"], best.reported["peak_memory_bytes"]
        values |= {key: metrics[key] for key in (ledger.objective.metric.key, "val_interval")}
        if peak is not None:
            values["peak_memory_mib"] = peak / MIB
    return values


def best_trial(ledger: Ledger) -> Entry | None:
    """The best trial of explore and search; None if none is complete and feasible."""
    return next(iter(ledger.ranking()), None)


def print_summary(
    console: Console,
    options: Options,
    ledger: Ledger,
    schedule: Schedule,
    pages: tuple[str, str] | None = None,
) -> None:
    """Print the best configs, how trials ended, and commands for a closer look.

    Args:
        console: where to print.
        options: options of the sweep.
        ledger: the record of the sweep.
        schedule: its trials.
        pages: `SweepRuns.addresses`; None if the store could not be opened.
    """
    best = [] if "grid" in schedule.quotas else ledger.ranking()
    if best:
        confirmed = ledger.finished("confirm")
        console.print(best_table(ledger.objective.metric, best[:3], confirmed))
    if "grid" not in schedule.quotas:
        for line in _feasibility(ledger, any_best=bool(best)):
            console.print(line, soft_wrap=True)
    entries = ledger.finished(*schedule.quotas)
    for status, words in _ENDED.items():
        count = sum(entry.status == status for entry in entries)
        if count:
            console.print(f"{count} {'trial' if count == 1 else 'trials'} {words}")
    if not_solved := unsolved(entries):
        console.print(not_solved, soft_wrap=True)
    if schedule.lost_cells:
        console.print(f"cells of the grid without a complete tuning trial: {schedule.lost_cells}")
    if not schedule.finished:
        console.print(
            f"{schedule.done()} of {schedule.total} done; run the sweep again to continue"
        )
    to_export = "--top 3" if len(ledger.objective.names) == 1 else "--pareto"
    for command in _commands(options, ledger.study.name, to_export if best else None):
        console.print(command, soft_wrap=True, markup=False)
    for line in _pages(options.tracking_uri, pages) if pages else ():
        console.print(line, soft_wrap=True, markup=False)


def _feasibility(ledger: Ledger, any_best: bool) -> Iterator[str]:
    """How many complete trials are within the memory limit, and whether there is a best config."""
    complete = [e for e in ledger.finished("explore", "search") if e.status == "complete"]
    limit = ledger.study.memory_limit
    if complete and limit is not None:
        feasible = sum(ledger.objective.feasible(entry.reported) for entry in complete)
        yield (
            f"{feasible} of {len(complete)} complete trials stay within the memory limit, "
            f"{human_size(limit)}"
        )
    if not any_best:
        within = " within the memory limit" if limit is not None else ""
        yield f"no best config: stages explore and search have no complete trial{within}"


def _commands(options: Options, study: str, to_export: str | None) -> Iterator[str]:
    """Commands that show more about the sweep, and the address of the MLflow UI.

    Args:
        options: options of the sweep.
        study: name of the study.
        to_export: options that select the best configs; None if there are none.
    """
    store = shlex.quote(masked(options.tracking_uri))
    where = ""
    if options.tracking_uri != default_uri(options.storage):
        where = f" --tracking-uri {store}"
    elif options.storage != Path("runs").resolve():
        where = f" --storage {shlex.quote(str(options.storage))}"
    yield f"memmeta trials {study}{where}"
    if to_export:
        yield f"memmeta export {study} {to_export} --out best.yaml{where}"
    else:
        yield f"memmeta report {study} --out report{where}"
    yield f"mlflow ui --backend-store-uri {store}" if in_database(options.tracking_uri) else store


def _pages(uri: str, pages: tuple[str, str]) -> Iterator[str]:
    """The addresses of a sweep's pages in the MLflow UI, if the store has one."""
    if in_database(uri) or uri.startswith("http"):
        address = _UI if in_database(uri) else masked(uri).rstrip("/")
        trials, comparison = pages
        yield f"trials, best first:    {address}/{trials}"
        yield f"parallel coordinates:  {address}/{comparison}"
