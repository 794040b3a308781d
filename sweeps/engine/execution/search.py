"""Ray Tune's view of the ledger: where its trials come from, and where their results go."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import ray
from ray import cloudpickle
from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from memmeta.system.stopping import GRACE, STOP
from sweeps.engine.execution.placement import Placed, Placement, Refusal
from sweeps.engine.execution.unsaved import Unsaved
from sweeps.engine.ledger.ledger import Entry, Ledger, Ticket
from sweeps.engine.ledger.schedule import Schedule
from sweeps.engine.study.outcome import SAVED, outcome

_BETWEEN_LOOKS = 1.0
"""Seconds between two looks at the storage."""

Next = Ticket | Literal["wait", "finished"]
"""What the schedule says of the next trial."""

Listener = Callable[[Entry], None]
"""Is told of a trial whenever the ledger knows more of it."""


class LedgerSearch(Unsaved, Searcher):
    """Takes every trial from the ledger.

    `tune.search.optuna.OptunaSearch` records a trial that failed as FAIL, which samplers ignore,
    and has no place for constraints; nor can it go on with an interrupted study.
    """

    def __init__(
        self,
        schedule: Schedule,
        ledger: Ledger,
        placement: Placement,
        listeners: list[Listener],
    ) -> None:
        super().__init__()
        self._schedule = schedule
        self._ledger = ledger
        self._placement = placement
        self._listeners = listeners
        self._tickets: dict[str, Ticket] = {}
        self._held: Ticket | None = None
        self._side = ThreadPoolExecutor(1, thread_name_prefix="placement")
        self._placing: tuple[Ticket, Future[Placed | Refusal]] | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The Tune config of the next trial that has to be run; none once the sweep is to stop."""
        if STOP.requested:
            return None
        while True:
            if self._placing is None:
                ticket = self._next()
                if not isinstance(ticket, Ticket):
                    return Searcher.FINISHED if ticket == "finished" else None
                placing = self._side.submit(self._placement.place, ticket.run, ticket.place)
                self._placing = ticket, placing
            ticket, placing = self._placing
            if self._tickets and not placing.done():
                # A prediction takes a moment, in which Tune has others to look after.
                return None
            self._placing = None
            placed = placing.result()
            if isinstance(placed, Refusal):
                self._tell(self._ledger.report(ticket, placed.result))
                continue
            self._tickets[trial_id] = ticket
            self._tell(self._ledger.entry(ticket.place))
            return {
                "name": f"{ticket.stage}-{ticket.index:03d}",
                "run": ticket.run.model_dump(),
                "test": ticket.stage == "confirm",
                **placed._asdict(),
            }

    def _next(self) -> Next:
        """The next trial that nobody has run or runs under another name."""
        while True:
            ticket = self._held or self._schedule.next()
            self._held = None
            twin = self._twin(ticket) if isinstance(ticket, Ticket) else None
            if twin is None:
                return ticket
            assert isinstance(ticket, Ticket)
            if twin.status == "running":
                # They would write the same checkpoints.
                self._held = ticket
                return "wait"
            assert twin.result is not None
            self._tell(self._ledger.report(ticket, twin.result))

    def record(self, trial_id: str, result: dict[str, Any]) -> Entry:
        """Write down a result."""
        ticket = self._tickets[trial_id]
        entry = self._ledger.report(ticket, outcome(result))
        self._tell(entry)
        return entry

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Forget a trial. One whose worker was lost too often waits for the next start."""
        del result  # recorded already
        ticket = self._tickets.pop(trial_id)
        self._placement.free(ticket.place)
        if error:
            self._tell(self._ledger.release(ticket))

    def _twin(self, ticket: Ticket) -> Entry | None:
        """A trial that does what this one is to do: now, or of its own stage before."""
        key = ticket.run.key
        return next(
            (
                entry
                for entry in self._ledger.entries()
                if entry.key == key
                and entry.place != ticket.place
                and (entry.status == "running" or (entry.stage == ticket.stage and entry.finished))
            ),
            None,
        )

    def _tell(self, entry: Entry) -> None:
        for listener in self._listeners:
            listener(entry)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class Farewell:
    """The last seconds of a sweep that is to stop: its running trials save themselves."""

    def __init__(self, ask: Callable[[], None]) -> None:
        """`ask` asks them to."""
        self._ask = ask
        self._begun: float | None = None
        self._waited_for: set[str] = set()

    def begin(self, running: list[str]) -> None:
        """Ask the trials of these ids; only the first call counts."""
        if self._begun is None:
            self._begun = time.monotonic()
            self._waited_for = set(running)
            self._ask()

    def hear(self, trial_id: str) -> None:
        """A trial has reported, and saved itself before it did."""
        if self._begun is not None:
            self._waited_for.discard(trial_id)

    @property
    def over(self) -> bool:
        """Whether all have saved themselves, or there is no more time for it."""
        if self._begun is None:
            return False
        return not self._waited_for or time.monotonic() - self._begun > GRACE


class Recorder(Unsaved, Stopper):
    """Hears every result first: has it recorded, and stops what is not worth going on with.

    Attributes:
        bug: the traceback of the first bug in a trial. It ends the sweep: the next trial would
            meet it too.
    """

    def __init__(
        self, search: LedgerSearch, refused: Callable[[], bool], farewell: Farewell
    ) -> None:
        """Record through `search`; `refused` says that the results cannot be tracked."""
        self.bug: str | None = None
        self.farewell = farewell
        self._search = search
        self._refused = refused

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Record a result, and say whether to stop the trial."""
        self.farewell.hear(trial_id)
        if result["status"] == SAVED:
            return False
        entry = self._search.record(trial_id, result)
        if entry.status == "failed":
            self.bug = result["message"]
        return entry.status == "pruned"

    def stop_all(self) -> bool:
        """Whether to stop the sweep."""
        return self.bug is not None or self._refused() or self.farewell.over


class Watch(Unsaved, Callback):
    """Tells errors of the trainable from lost machines, which alone are worth another try.

    It also waits for storage that went away, and begins the farewell when the process is asked to
    stop.
    """

    def __init__(self, recorder: Recorder, wait_for_storage: Callable[[], object]) -> None:
        """Watch for `recorder`; `wait_for_storage` returns once the storage is here."""
        self.recorder = recorder
        self._wait_for_storage = wait_for_storage
        self._next_look = 0.0

    def on_step_begin(self, *, trials: list[Trial], **_: Any) -> None:
        """Tune goes through its loop."""
        if time.monotonic() >= self._next_look:
            # Trials may all wait for the storage, so that nothing is reported and nothing written.
            self._wait_for_storage()
            self._next_look = time.monotonic() + _BETWEEN_LOOKS
        if STOP.requested:
            self.recorder.farewell.begin([t.trial_id for t in trials if t.status == Trial.RUNNING])

    def on_trial_recover(self, *, trial: Trial, **_: Any) -> None:
        """An error after which Ray would start the trial again."""
        self._look_at(trial)

    def on_trial_error(self, *, trial: Trial, **_: Any) -> None:
        """An error after which it would not."""
        self._look_at(trial)

    def _look_at(self, trial: Trial) -> None:
        if trial.pickled_error_file is None:
            return
        # This process has just written it.
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        if not isinstance(error, ray.exceptions.RayActorError) or error.actor_init_failed:
            self.recorder.bug = str(error)
