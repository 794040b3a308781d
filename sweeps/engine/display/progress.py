"""One live view of a running sweep; in a log file, a line a finished trial."""

import time
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps.engine.display.table import memory, score, short
from sweeps.engine.ledger.ledger import Entry, Ledger
from sweeps.engine.ledger.schedule import Schedule
from sweeps.engine.study.outcome import Stage

_BETWEEN_LOOKS = 0.5
"""Seconds from one look at the ledger to the next."""


class Progress:
    """Trials done, the best so far with its interval and memory, and the time left."""

    def __init__(self, console: Console, ledger: Ledger, schedule: Schedule) -> None:
        self._console = console
        self._ledger = ledger
        self._schedule = schedule
        self._begun = time.monotonic()
        self._done_before = self._done = schedule.done()
        self._total = schedule.total
        self._shares: dict[tuple[Stage, int], float] = {}  # spent by each running trial
        self._noted: set[tuple[tuple[Stage, int], str]] = set()  # what was printed of each trial
        self._lines: list[str] = []
        self._looked = -_BETWEEN_LOOKS
        self._live = Live(console=console, get_renderable=self._view, refresh_per_second=2)

    def __enter__(self) -> None:
        """Begin to show."""
        if self._console.is_terminal:
            self._look()
            self._live.start()

    def __exit__(self, *_: object) -> Literal[False]:
        """Show no longer."""
        if self._live.is_started:
            self._live.stop()
        return False

    def update(self, entry: Entry) -> None:
        """Take in what a trial reports."""
        self._print_notes(entry)
        # Here and not in the thread that draws: the ledger's storage may be away.
        if self._console.is_terminal and time.monotonic() - self._looked >= _BETWEEN_LOOKS:
            self._look()
        if entry.status == "running":
            step = entry.result["step"] if entry.result else 0
            self._shares[entry.place] = step / entry.run.iterations
            return
        self._shares.pop(entry.place, None)
        if not self._console.is_terminal:
            self._console.print(self._line(entry), soft_wrap=True, markup=False)

    def _print_notes(self, entry: Entry) -> None:
        for note in (entry.result or {}).get("notes", []):
            if (entry.place, note) not in self._noted:
                self._noted.add((entry.place, note))
                self._console.print(f"{entry.name}   {note}", soft_wrap=True, markup=False)

    def _look(self) -> None:
        """Ask the ledger for what is shown."""
        stages = (
            f"{stage} {self._schedule.done(stage)}/{self._schedule.quota(stage)}"
            for stage in self._schedule.quotas
        )
        best = [] if "grid" in self._schedule.quotas else [self._best()]
        self._done, self._total = self._schedule.done(), self._schedule.total
        self._lines = ["   ".join(stages), *best]
        self._looked = time.monotonic()

    def _view(self) -> RenderableType:
        grid = Table.grid(padding=(0, 3))
        grid.add_row(
            Text(f"{self._done} of {self._total} trials", style="bold"),
            ProgressBar(total=self._total, completed=self._done, width=20),
            f"{len(self._shares)} under way",
            f"{_clock(time.monotonic() - self._begun)} spent",
            self._time_left(self._done, self._total),
        )
        return Group(grid, *self._lines)

    def _best(self) -> str:
        """The best of explore and search; a grid ranks nothing."""
        best = self._ledger.ranking()
        if not best:
            return "no result yet"
        params = "  ".join(f"{k} {short(v)}" for k, v in best[0].params.items())
        metric = self._ledger.objective.metric
        return f"best {score(metric, best[0])}, {memory(best[0])}   {params}"

    def _time_left(self, done: int, total: int) -> str:
        worked = done - self._done_before + sum(self._shares.values())
        if worked < 0.25:
            return ""
        left = total - self._done_before - worked
        return f"about {_clock((time.monotonic() - self._begun) / worked * max(0, left))} left"

    def _line(self, entry: Entry) -> str:
        said = entry.status.replace("_", " ")
        if entry.status == "complete":
            said = score(self._ledger.objective.metric, entry)
        elif entry.result and "message" in entry.result:
            said += f" ({entry.result['message'].splitlines()[-1]})"
        left = self._time_left(self._schedule.done(), self._schedule.total)
        return f"{entry.name}   {said}   " + (f"({left})" if left else "")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
