"""A thread that keeps MLflow up to date with the ledger.

MLflow is compared with the ledger, and the difference is sent. So nothing is lost if a server is
unavailable or a driver is killed.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from memmeta.checkpoint import Saved
from memmeta.errors import InputError
from sweeps.engine.ledger.entry import Entry
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.stores.masking import reason
from sweeps.engine.stores.store import AwayError, make_database, store_errors_in_one_line
from sweeps.engine.tracking.runs import SweepNames, SweepRuns

_HEAD_START = 8.0
"""Seconds before MLflow is imported, so that it does not slow down the start of the workers."""

_LONGEST_PAUSE = 30.0
"""Maximum time between two attempts while a server does not answer, in seconds."""

_CLOSE_TIMEOUT = 20.0
"""Maximum time for sending the rest when the sweep ends, in seconds."""

_LAST_PAUSE = 1.0
"""Time between two attempts when the sweep ends, in seconds."""


class Tracker:
    """Sends trials to MLflow from a thread, so that a slow server does not delay the sweep."""

    def __init__(
        self,
        ledger: Ledger,
        name: str,
        uri: str,
        experiment: str,
        files: Path,
        is_away: Callable[[], bool] = lambda: False,
        planned: int | None = None,
    ) -> None:
        """Prepare a tracker. It connects after the first trial was sent.

        Args:
            ledger: the record of the sweep.
            name: name of the sweep.
            uri: the MLflow store.
            experiment: name of the experiment.
            files: folder for artifacts if the store is a database without a server.
            is_away: whether the sweep's storage is unavailable, so that nothing may be written.
            planned: number of trials that the sweep has when it is finished; None if unknown.
        """
        self._ledger = ledger
        self._names = SweepNames(ledger.study.name, name, ledger.identity, experiment)
        self._settings = ledger.settings
        self._uri, self._files = uri, files
        self._is_away = is_away
        self._planned = planned
        self._runs: SweepRuns | None = None  # until the store is open
        self._recorded = {entry.slot: entry for entry in ledger.entries()}
        self._waiting = dict(self._recorded)
        self._changed = threading.Condition()
        self._closing = False
        self._deadline = math.inf
        self._problem: str | None = None
        self._refusal: InputError | None = None
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)

    @property
    def refused(self) -> bool:
        """Whether the store cannot be opened."""
        return self._refusal is not None

    @property
    def run_id(self) -> str | None:
        """The MLflow run of the sweep; None until it exists."""
        return self._runs.run_id if self._runs else None

    def send(self, entry: Entry) -> None:
        """Queue a trial. It replaces an older state of the same trial in the queue."""
        if entry.stage not in self._settings:
            self._settings = self._ledger.settings
        with self._changed:
            self._waiting[entry.slot] = entry
            self._wake()

    @property
    def addresses(self) -> tuple[str, str] | None:
        """See `SweepRuns.addresses`; None if the store is not open."""
        return self._runs.addresses if self._runs else None

    def close(
        self,
        entries: Iterable[Entry],
        finished: bool,
        summary: Mapping[str, float],
        best: Entry | None = None,
    ) -> str | None:
        """Send the rest of the queue, and end the sweep's run.

        Args:
            entries: final state of all trials.
            finished: whether all trials are done.
            summary: metrics of the sweep.
            best: the best trial of explore and search, if there is one.

        Returns:
            None, or the reason why not everything was sent. The next start of the sweep sends it.

        Raises:
            InputError: the store cannot be opened.
        """
        with self._changed:
            self._waiting |= {entry.slot: entry for entry in entries}
            self._closing = True
            self._wake()
        self._thread.join()
        if self._refusal:
            raise self._refusal
        if self._waiting or self._runs is None:
            return f"trials not in MLflow yet: {len(self._waiting)} ({self._problem})"
        try:
            self._runs.finish(finished, summary, best)
        except Exception as error:
            return f"the sweep's summary is not in MLflow yet ({reason(error, self._uri)})"
        return None

    def log_model(self, trial: Entry, read: Callable[[], Saved]) -> str:
        """Log the model of a trial to the sweep's run, after `close` has sent everything.

        Args:
            trial: the trial.
            read: reads its checkpoint.

        Returns:
            The address of the model.

        Raises:
            InputError: the model cannot be logged.
        """
        assert self._runs is not None
        try:
            return self._runs.log_model(trial, read)
        except InputError:
            raise
        except Exception as error:
            # Databases, object stores and file systems share no narrower base class.
            raise InputError(reason(error, self._uri)) from None

    def _wake(self) -> None:
        if self._thread.ident is None:
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        """Open the store and send the queue, oldest trial first.

        After a failure it tries again, with increasing pauses.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closing, timeout=_HEAD_START)
        pause = 0.0
        while self._has_work(pause):
            try:
                self._work(after_failure=pause > 0)
                pause = 0.0
            except Exception as error:
                # MLflow, SQLAlchemy and HTTP clients share no narrower base class.
                if isinstance(error, InputError) and not isinstance(error, AwayError):
                    self._refusal = error
                    return
                self._problem = reason(error, self._uri)
                pause = min(_LONGEST_PAUSE, 2 * pause or 1.0)

    def _has_work(self, pause: float) -> bool:
        """Wait for work, and also for `pause` seconds if the last attempt failed.

        Returns:
            False if everything is sent, or the time is up.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if pause:
                self._changed.wait_for(lambda: self._closing, timeout=pause)
            if not self._closing:
                return True
            self._deadline = min(self._deadline, time.monotonic() + _CLOSE_TIMEOUT)
        if pause:
            time.sleep(_LAST_PAUSE)
            return time.monotonic() < self._deadline
        return bool(self._waiting) or self._runs is None

    def _work(self, after_failure: bool) -> None:
        """Open the store if it is not open yet, or send one trial."""
        if self._is_away():
            raise OSError("the storage is unavailable")
        if self._runs is None:
            self._open()
            return
        self._runs.write_settings(self._settings)
        with self._changed:
            slot = next(iter(self._waiting))
            entry = self._waiting.pop(slot)
        try:
            if after_failure:
                self._runs.refresh()
            self._runs.sync(entry)
        except Exception:
            with self._changed:
                self._waiting.setdefault(slot, entry)
            raise

    def _open(self) -> None:
        # MLflow is compared with the trials at the start. A finished one may run again since then.
        entries = self._recorded
        with store_errors_in_one_line(self._uri):
            make_database(self._uri)
            self._runs = SweepRuns(
                self._uri, self._names, self._files, entries, self._settings, self._planned
            )
