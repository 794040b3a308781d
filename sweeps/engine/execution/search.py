"""The search algorithm for Ray Tune: it takes trials from the schedule and the ledger."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

from ray.tune.search import Searcher

from memmeta.system.stopping import STOP
from sweeps.engine.execution.placement import Allocation, Placement, Refusal
from sweeps.engine.execution.unpickled import Unpickled
from sweeps.engine.ledger.entry import Entry, RunningTrial
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.ledger.schedule import Schedule
from sweeps.engine.study.result import reported_result

Listener = Callable[[Entry], None]
"""Called with a trial whenever its entry in the ledger has changed."""


class LedgerSearch(Unpickled, Searcher):
    """Supplies Tune with the trials of the schedule and records their results.

    `tune.search.optuna.OptunaSearch` is not used for three reasons: it records a failed trial as
    FAIL, which samplers ignore; it does not support constraints; and it cannot continue an
    interrupted study.
    """

    def __init__(
        self,
        schedule: Schedule,
        ledger: Ledger,
        placement: Placement,
        listeners: Sequence[Listener],
    ) -> None:
        super().__init__()
        self._schedule = schedule
        self._ledger = ledger
        self._placement = placement
        self._listeners = listeners
        self._running: dict[str, RunningTrial] = {}  # by Tune's trial id
        self._waiting: RunningTrial | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="placement")
        self._allocating: tuple[RunningTrial, Future[Allocation | Refusal]] | None = None

    def suggest(  # type: ignore[override]  # Ray's annotation lacks Searcher.FINISHED
        self, trial_id: str
    ) -> dict[str, Any] | str | None:
        """The Tune config of the next trial; None if there is none now or the sweep should stop."""
        if STOP.requested:
            return None
        while True:
            if self._allocating is None:
                trial = self._next()
                if not isinstance(trial, RunningTrial):
                    return Searcher.FINISHED if trial == "finished" else None
                future = self._executor.submit(self._placement.allocate, trial.run, trial.slot)
                self._allocating = trial, future
            trial, future = self._allocating
            if self._running and not future.done():
                # The memory prediction takes a moment. Meanwhile Tune can handle other trials.
                return None
            self._allocating = None
            allocation = future.result()
            if isinstance(allocation, Refusal):
                self._notify(self._ledger.report(trial, allocation.result))
                continue
            self._running[trial_id] = trial
            self._notify(self._ledger.entry(trial.slot))
            return {
                "name": f"{trial.stage}-{trial.index:03d}",
                "run": trial.run.model_dump(),
                "test": trial.stage == "confirm",
                "evaluate_on": self._ledger.study.evaluate_on,
                **allocation._asdict(),
            }

    def _next(self) -> RunningTrial | Literal["wait", "finished"]:
        """The next trial whose run is not trained in another slot.

        If the same run has finished in the same stage, its result is recorded for the trial too.
        """
        while True:
            trial = self._waiting or self._schedule.next()
            self._waiting = None
            if not isinstance(trial, RunningTrial):
                return trial
            twin = self._ledger.twin(trial)
            if twin is None:
                return trial
            if twin.status == "running":
                # Both would write the same checkpoints.
                self._waiting = trial
                return "wait"
            self._notify(self._ledger.report(trial, twin.reported))

    def record(self, trial_id: str, report: dict[str, Any]) -> Entry:
        """Record a report of a trial."""
        entry = self._ledger.report(self._running[trial_id], reported_result(report))
        self._notify(entry)
        return entry

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Free the resources of a trial.

        Args:
            trial_id: Tune's id of the trial.
            result: its last report, which is recorded already.
            error: whether its worker was lost too often. The next start runs it again.
        """
        del result
        trial = self._running.pop(trial_id)
        self._placement.free(trial.slot)
        if error:
            self._notify(self._ledger.release(trial))

    def _notify(self, entry: Entry) -> None:
        for listener in self._listeners:
            listener(entry)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing."""
