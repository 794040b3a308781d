"""The list of sweeps on the terminal, and as JSON."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from memmeta.system.units import human_size
from sweeps.engine.inventory.listing import StoredSweep

_UNITS = (("days", 86_400), ("hours", 3600), ("minutes", 60))


def rows(sweeps: Sequence[StoredSweep]) -> list[dict[str, Any]]:
    """Flat objects, one for each sweep."""
    return [
        {
            "name": sweep.name,
            "state": sweep.state,
            "trials": sweep.done,
            "planned_trials": sweep.planned,
            "bytes": sweep.size,
            "last_active": sweep.last_active.isoformat(timespec="seconds"),
            "folder": str(sweep.folder) if sweep.folder else None,
            "run_id": sweep.run.info.run_id if sweep.run else None,
        }
        for sweep in sweeps
    ]


def show(console: Console, sweeps: Sequence[StoredSweep]) -> None:
    """Print a table with one row for each sweep."""
    table = Table(box=None, pad_edge=False)
    table.add_column("sweep", overflow="fold")
    table.add_column("state")
    for title in ("trials", "size", "last active"):
        table.add_column(title, justify="right", no_wrap=True)
    now = datetime.now(UTC)
    for sweep in sweeps:
        trials = str(sweep.done) + (f" of {sweep.planned}" if sweep.planned is not None else "")
        size = human_size(sweep.size) if sweep.folder else "no folder"
        table.add_row(sweep.name, sweep.state, trials, size, age(sweep.last_active, now))
    console.print(table)


def age(then: datetime, now: datetime) -> str:
    """The time between two moments, in its largest unit: `3 hours ago`.

    Examples:
        >>> from datetime import datetime
        >>> age(datetime(2026, 1, 1, 9), datetime(2026, 1, 1, 12, 30))
        '3 hours ago'
    """
    seconds = (now - then).total_seconds()
    for unit, length in _UNITS:
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {unit if number > 1 else unit.removesuffix('s')} ago"
    return "just now"
