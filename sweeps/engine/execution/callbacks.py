"""How a sweep reacts to results, errors and requests to stop while Tune runs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray.tune import Callback, ProgressReporter, Stopper
from ray.tune.experiment import Trial

from memmeta.system.stopping import GRACE, STOP
from sweeps.engine.execution.search import LedgerSearch
from sweeps.engine.execution.trainable import SAVED
from sweeps.engine.execution.unpickled import Unpickled

_STORAGE_CHECK_SECONDS = 1.0
"""Interval between checks of the storage."""


class Shutdown:
    """Gives running trials time to save themselves before the sweep stops."""

    def __init__(self, ask_to_save: Callable[[], None]) -> None:
        """Prepare a shutdown.

        Args:
            ask_to_save: asks all running trials to save themselves.
        """
        self._ask_to_save = ask_to_save
        self._started: float | None = None
        self._unsaved: set[str] = set()

    def begin(self, running: list[str]) -> None:
        """Start the shutdown, unless it has started.

        Args:
            running: Tune's ids of the running trials.
        """
        if self._started is None:
            self._started = time.monotonic()
            self._unsaved = set(running)
            self._ask_to_save()

    def on_report(self, trial_id: str) -> None:
        """Note that a trial has reported. Trials save themselves before they report."""
        if self._started is not None:
            self._unsaved.discard(trial_id)

    @property
    def over(self) -> bool:
        """Whether all trials have saved themselves, or the time is up."""
        if self._started is None:
            return False
        return not self._unsaved or time.monotonic() - self._started > GRACE


class ResultRecorder(Unpickled, Stopper):
    """Records every result, and stops pruned trials.

    Tune calls stoppers before the search algorithm and the callbacks.

    Attributes:
        bug: the traceback of the first bug in a trial. It stops the sweep, because other trials
            would fail too.
        shutdown: the shutdown of the sweep.
    """

    def __init__(
        self, search: LedgerSearch, tracking_failed: Callable[[], bool], shutdown: Shutdown
    ) -> None:
        """Make a recorder.

        Args:
            search: records the results.
            tracking_failed: whether results cannot be sent to MLflow, so that the sweep must stop.
            shutdown: the shutdown of the sweep.
        """
        self.bug: str | None = None
        self.shutdown = shutdown
        self._search = search
        self._tracking_failed = tracking_failed

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Record a result. Returns whether to stop the trial."""
        self.shutdown.on_report(trial_id)
        if result["status"] == SAVED:
            return False
        entry = self._search.record(trial_id, result)
        if entry.status == "failed":
            self.bug = entry.message
        return entry.status == "pruned"

    def stop_all(self) -> bool:
        """Whether to stop the sweep."""
        return self.bug is not None or self._tracking_failed() or self.shutdown.over


class SweepCallback(Unpickled, Callback):
    """Waits for storage that is unavailable, starts the shutdown, and finds bugs in the trainable.

    Tune retries trials after any error. Only a lost worker is worth a retry, so any other error
    stops the sweep.
    """

    def __init__(self, recorder: ResultRecorder, wait_for_storage: Callable[[], object]) -> None:
        """Make a callback.

        Args:
            recorder: where bugs are noted.
            wait_for_storage: returns when the storage is available.
        """
        self.recorder = recorder
        self._wait_for_storage = wait_for_storage
        self._next_check = 0.0

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Called by Tune in each iteration of its loop."""
        del iteration, info
        if time.monotonic() >= self._next_check:
            # If all trials wait for the storage, nothing else notices that it is unavailable.
            self._wait_for_storage()
            self._next_check = time.monotonic() + _STORAGE_CHECK_SECONDS
        if STOP.requested:
            self.recorder.shutdown.begin([t.trial_id for t in trials if t.status == Trial.RUNNING])

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Tune after an error, if it does not start the trial again."""
        del iteration, trials, info
        if trial.pickled_error_file is None:
            return
        # This process has written the file, so it is safe to unpickle.
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        if not isinstance(error, ray.exceptions.RayActorError) or error.actor_init_failed:
            self.recorder.bug = str(error)

    on_trial_recover = on_trial_error
    """Called by Tune after an error, before it starts the trial again."""


class Silence(Unpickled, ProgressReporter):
    """Prints nothing. In notebooks, Tune's own reporter would clear the output of the cell."""

    def should_report(self, trials: list[Trial], done: bool = False) -> bool:
        """Never."""
        del trials, done
        return False
