"""One live view of a running sweep; in a log file, a line a finished trial."""

import time
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps.engine.ledger import Ledger
from sweeps.engine.search import run_of
from sweeps.engine.table import memory, score, short
from sweeps.engine.unsaved import Unsaved


class Progress(Unsaved, Callback):
    """Trials done, the best so far with its interval and memory, and the time left."""

    def __init__(self, console: Console, ledger: Ledger, total: int) -> None:
        self._console = console
        self._ledger = ledger
        self._total = total
        self._begun = time.monotonic()
        self._done_before = len(ledger.finished)
        self._shares: dict[str, float] = {}  # of its budget that each running trial has spent
        self._ended = 0.0  # trials' worth of work that ended since the start
        self._live = Live(console=console, get_renderable=self._view, refresh_per_second=2)

    def setup(self, **_: Any) -> None:
        """Begin to show."""
        if self._console.is_terminal:
            self._live.start()

    def on_trial_start(self, *, trial: Trial, **_: Any) -> None:
        """Show the trial as running."""
        self._shares[trial.trial_id] = 0.0

    def on_trial_result(self, *, trial: Trial, result: dict[str, Any], **_: Any) -> None:
        """Take note of the part of the budget that is spent."""
        self._shares[trial.trial_id] = result["step"] / run_of(trial).iterations
        if result["status"] != "running" and not self._console.is_terminal:
            self._console.print(self._line(trial.config["number"], result))

    def on_trial_complete(self, *, trial: Trial, **_: Any) -> None:
        """Count the trial as done."""
        self._shares.pop(trial.trial_id, None)
        self._ended += 1

    def on_trial_error(self, *, trial: Trial, **_: Any) -> None:
        """A lost trial no longer runs."""
        self._shares.pop(trial.trial_id, None)

    def stop(self) -> None:
        """Show no longer."""
        if self._live.is_started:
            self._live.stop()

    def _view(self) -> RenderableType:
        done = len(self._ledger.finished)
        grid = Table.grid(padding=(0, 3))
        grid.add_row(
            Text(f"{done} of {self._total} trials", style="bold"),
            ProgressBar(total=self._total, completed=done, width=20),
            f"{len(self._shares)} running",
            f"{_clock(time.monotonic() - self._begun)} spent",
            self._time_left(),
        )
        return Group(grid, self._best())

    def _best(self) -> str:
        best = self._ledger.ranked
        if not best:
            return "no result yet"
        params = "  ".join(f"{k} {short(v)}" for k, v in best[0].params.items())
        return f"best {score(self._ledger.metric, best[0])}, {memory(best[0])}   {params}"

    def _time_left(self) -> str:
        worked = self._ended + sum(self._shares.values())
        if worked < 0.25:
            return ""
        left = self._total - self._done_before - worked
        return f"about {_clock((time.monotonic() - self._begun) / worked * max(0, left))} left"

    def _line(self, number: int, result: dict[str, Any]) -> str:
        if result["status"] == "complete":
            metrics, metric = result["metrics"], self._ledger.metric
            value, interval = metrics[metric.key], metrics["val_interval"]
            said = f"{metric.alone(value)} ± {metric.alone(interval)}"
        else:
            said = result["status"].replace("_", " ")
        left = self._time_left()
        return f"trial {number:03d}   {said}   " + (f"({left})" if left else "")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
