"""Progress of a running sweep.

A terminal and a notebook show a live view. Elsewhere, each trial that ends prints a line.
"""

import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from memmeta.system.live import is_live, live
from memmeta.system.units import short
from sweeps.engine.display.table import memory, score
from sweeps.engine.ledger.entry import Entry, Slot
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.ledger.schedule import Schedule

_REFRESH_SECONDS = 0.5
"""Minimum time between two queries of the ledger."""


class Progress:
    """Shows how many trials are done, the best trial so far, and the time left."""

    def __init__(self, console: Console, ledger: Ledger, schedule: Schedule) -> None:
        self._console = console
        self._ledger = ledger
        self._schedule = schedule
        self._started = time.monotonic()
        self._done_before = self._done = schedule.done()
        self._total = schedule.total
        self._fractions: dict[Slot, float] = {}  # how much of each running trial is done
        self._printed_notes: set[tuple[Slot, str]] = set()
        self._lines: list[str] = []
        self._refreshed = -_REFRESH_SECONDS
        self._is_live = is_live(console)
        self._live = live(console, self._view)

    def __enter__(self) -> None:
        """Start the live view, if there is one."""
        if self._is_live:
            self._refresh()
        self._live.__enter__()

    def __exit__(self, *exception: Any) -> None:
        """Stop the live view, with the final numbers."""
        if self._is_live:
            self._refresh()
        self._live.__exit__(*exception)

    def update(self, entry: Entry) -> None:
        """Show the new state of a trial."""
        self._print_notes(entry)
        # Not in the thread that draws, which would hang if the ledger's storage is unavailable.
        if self._is_live and time.monotonic() - self._refreshed >= _REFRESH_SECONDS:
            self._refresh()
        if entry.status == "running":
            step = entry.result["step"] if entry.result else 0
            self._fractions[entry.slot] = step / entry.run.iterations
            return
        self._fractions.pop(entry.slot, None)
        if not self._is_live:
            self._console.print(self._line(entry), soft_wrap=True, markup=False)

    def _print_notes(self, entry: Entry) -> None:
        notes = entry.result.get("notes", []) if entry.result else []
        for note in notes:
            if (entry.slot, note) not in self._printed_notes:
                self._printed_notes.add((entry.slot, note))
                self._console.print(f"{entry.name}   {note}", soft_wrap=True, markup=False)

    def _refresh(self) -> None:
        """Query the ledger for the live view."""
        stages = (
            f"{stage} {self._schedule.done(stage)}/{self._schedule.quota(stage)}"
            for stage in self._schedule.quotas
        )
        best = [] if "grid" in self._schedule.quotas else [self._best()]
        self._done, self._total = self._schedule.done(), self._schedule.total
        self._lines = ["   ".join(stages), *best]
        self._refreshed = time.monotonic()

    def _view(self) -> RenderableType:
        grid = Table.grid(padding=(0, 3))
        grid.add_row(
            Text(f"{self._done} of {self._total} trials", style="bold"),
            ProgressBar(total=self._total, completed=self._done, width=20),
            f"{len(self._fractions)} running",
            f"{_clock(time.monotonic() - self._started)} spent",
            self._time_left(self._done, self._total),
        )
        return Group(grid, *self._lines)

    def _best(self) -> str:
        """The best trial of explore and search."""
        best = self._ledger.ranking()
        if not best:
            return "no result yet"
        params = "  ".join(f"{k} {short(v)}" for k, v in best[0].params.items())
        metric = self._ledger.objective.metric
        return f"best {score(metric, best[0])}, {memory(best[0])}   {params}"

    def _time_left(self, done: int, total: int) -> str:
        worked = done - self._done_before + sum(self._fractions.values())
        if worked < 0.25:
            return ""
        left = total - self._done_before - worked
        return f"about {_clock((time.monotonic() - self._started) / worked * max(0, left))} left"

    def _line(self, entry: Entry) -> str:
        text = entry.status.replace("_", " ")
        if entry.status == "complete":
            text = score(self._ledger.objective.metric, entry)
        elif entry.message is not None:
            text += f" ({entry.message.splitlines()[-1]})"
        left = self._time_left(self._schedule.done(), self._schedule.total)
        return f"{entry.name}   {text}   " + (f"({left})" if left else "")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
