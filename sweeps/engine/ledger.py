"""The ledger: the one record of a sweep, from which the same command goes on."""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import optuna
from filelock import FileLock, Timeout
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from memmeta.config import RunConfig, parse
from memmeta.errors import InputError
from memmeta.files import whole
from sweeps.engine import space
from sweeps.engine.objective import Objective
from sweeps.engine.outcome import FINAL, Stage, Status
from sweeps.engine.store import explained
from sweeps.engine.study import Study

STAGES: tuple[Stage, ...] = get_args(Stage)

_SETTINGS = "settings"
# Of a trial: its place in its stage, its point of the space, its training seed, what it reported
# last, and for a trial that `search` learned from `explore` its place there.
_INDEX, _PARAMS, _SEED, _RESULT, _EXPLORED = "index", "params", "seed", "result", "explored"
# Of a stage in a database: the identity of the sweep's folder, and the file there that has it too.
_FOLDER, _IDENTITY = "folder", "ledger.id"

_RESTS_ON: Mapping[Stage, Sequence[Stage]] = {
    "search": ["explore"],
    "confirm": ["explore", "search"],
}
"""Stages, and those from whose trials theirs follow."""

_SAMPLERS: dict[str, type[BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "gp": optuna.samplers.GPSampler,
    "nsgaii": optuna.samplers.NSGAIISampler,
    "random": optuna.samplers.RandomSampler,
}


@dataclass(frozen=True)
class Entry:
    """A trial as the ledger knows it."""

    stage: Stage
    index: int
    """Its place in its stage, from 0."""
    params: dict[str, Any]
    """Its point of the space."""
    run: RunConfig
    """What is trained."""
    status: Status
    result: dict[str, Any] | None
    """What it reported last."""

    @property
    def place(self) -> tuple[Stage, int]:
        """Names the trial in the ledger."""
        return self.stage, self.index

    @property
    def name(self) -> str:
        """`explore 007`."""
        return f"{self.stage} {self.index:03d}"

    @property
    def finished(self) -> bool:
        """Whether it has its final result."""
        return self.status in FINAL

    @property
    def refused(self) -> bool:
        """Whether no worker has seen it, since there was too little memory for it."""
        return self.status == "out_of_memory" and "hardware" not in (self.result or {})


class Ticket:
    """A trial that is being run by this process."""

    def __init__(self, stage: Stage, trial: optuna.Trial, run: RunConfig) -> None:
        self.stage = stage
        self.trial = trial
        self.run = run
        self.index: int = trial.user_attrs[_INDEX]
        self.reported = 0  # how many of its validations Optuna has

    @property
    def place(self) -> tuple[Stage, int]:
        """Names the trial in the ledger."""
        return self.stage, self.index


class Ledger:
    """An Optuna study for each stage of a sweep, in one append-only journal or a database.

    A trial is open from `begin` or `propose` to its last `report`. What is open when a ledger is
    opened was interrupted: to Optuna it failed, and it is to be begun again under the same index.
    Trials that have their final result never run again.
    """

    def __init__(
        self,
        study: Study,
        seed: int,
        folder: Path,
        url: str | None = None,
        stages: Sequence[Stage] = STAGES,
        name: str | None = None,
    ) -> None:
        """Open the ledger of a sweep, or begin one.

        Args:
            study: the study.
            seed: of the sweep.
            folder: of the sweep; the journal is in it.
            url: of a database that holds the ledger instead, as SQLAlchemy has it.
            stages: those that are to be run.
            name: of the sweep; the study's for this seed by default.

        Raises:
            InputError: the sweep was begun with other settings, its record is not the one that
                belongs to `folder`, or cannot be read.
        """
        self.study = study
        self.seed = seed
        self.objective = Objective(study.data.metric, study.objective, study.memory_limit)
        self._name = name or study.sweep_name(seed)
        self._live: dict[tuple[Stage, int], Ticket] = {}
        self._reopened: set[tuple[Stage, int]] = set()
        self._runs: dict[tuple[Stage, int], RunConfig] = {}
        self._storage = _open(folder, url)
        summaries = optuna.get_all_study_summaries(self._storage)
        begun = {summary.study_name: summary.user_attrs for summary in summaries}
        owner = None if url is None else _identity(folder)
        for stage in STAGES:
            if begun.get(self._book_name(stage), {}).get(_FOLDER, owner) != owner:
                raise InputError(
                    f"--ledger: {self._name} in this database is the record of another folder than "
                    f"{folder}. Name that one's --storage, or another database"
                )
        self._books = {
            stage: self._open_book(stage)
            for stage in STAGES
            if stage in stages or self._book_name(stage) in begun
        }
        for stage in stages:
            self._check_settings(stage, folder)
        if owner:
            with whole(folder / _IDENTITY) as file:
                file.write(owner.encode())
        for book in self._books.values():
            if owner:
                book.set_user_attr(_FOLDER, owner)
            self._settle(book)

    @property
    def settings(self) -> dict[Stage, dict[str, Any]]:
        """With what each stage was begun."""
        begun = {stage: book.user_attrs for stage, book in self._books.items()}
        return {stage: of[_SETTINGS] for stage, of in begun.items() if _SETTINGS in of}

    def entries(self, *stages: Stage) -> list[Entry]:
        """All trials of the stages (of all stages by default), in the order of their indices."""
        found: list[Entry] = []
        for stage in stages or STAGES:
            if stage in self._books:
                latest = _latest(self._books[stage])
                found += [self._entry(stage, latest[index]) for index in sorted(latest)]
        return found

    def finished(self, *stages: Stage) -> list[Entry]:
        """The trials that have their final result."""
        return [entry for entry in self.entries(*stages) if entry.finished]

    def entry(self, place: tuple[Stage, int]) -> Entry:
        """One trial."""
        stage, index = place
        return self._entry(stage, _latest(self._books[stage])[index])

    def begin(self, stage: Stage, index: int, params: Mapping[str, Any], seed: int) -> Ticket:
        """Begin a trial whose point is known, or begin an interrupted one again."""
        book = self._books[stage]
        attributes = {_INDEX: index, _PARAMS: dict(params), _SEED: seed}
        book.enqueue_trial(dict(params), attributes)
        trial = book.ask()
        if stage not in ("tune", "grid"):  # whose values the study's space may not have
            space.suggest(trial, self.study.space, self.study.learner)
        return self._ticket(stage, trial)

    def propose(self) -> Ticket:
        """Begin a trial of stage search, at a point that the sampler chooses."""
        book = self._books["search"]
        self._learn_from_explore()
        index = len(_latest(book))
        # Seeded by the trial's place, so that a restart proposes what would have come anyway.
        seed = (10_000 * self.seed + index) % 2**32
        book.sampler = _SAMPLERS[self.study.sampler](seed=seed)
        trial = book.ask()
        params = space.suggest(trial, self.study.space, self.study.learner)
        trial.set_user_attr(_PARAMS, params)
        trial.set_user_attr(_SEED, self.seed)
        trial.set_user_attr(_INDEX, index)  # the last one: without it the trial does not count
        return self._ticket("search", trial)

    def report(self, ticket: Ticket, result: Mapping[str, Any]) -> Entry:
        """Record what a trial says, and close it if that is final.

        A trial that is not worth going on with becomes `pruned`. An infeasible one is told to the
        sampler with a violated constraint, so that it learns where not to go.
        """
        result = dict(result)
        if result["status"] == "running" and self._to_be_pruned(ticket, result):
            result["status"] = "pruned"
        final = result["status"] in FINAL
        if final:
            for name, violation in self.objective.constraints(result).items():
                ticket.trial.set_constraint(name, violation)
        # Before the trial is closed: killed in between, it is closed when the ledger is opened.
        ticket.trial.set_user_attr(_RESULT, result)
        if final:
            self._close(self._books[ticket.stage], ticket.trial.number, result)
        if result["status"] != "running":
            self._live.pop(ticket.place)
        return self.entry(ticket.place)

    def release(self, ticket: Ticket) -> Entry:
        """No longer run the trial, whose worker is lost; the next start begins it again."""
        self._live.pop(ticket.place, None)
        return self.entry(ticket.place)

    def release_all(self) -> None:
        """As `release`, for all that run."""
        self._live.clear()

    def reopen(self, fits: Callable[[RunConfig], bool]) -> None:
        """Have trials that were refused begun again, as far as they fit now."""
        self._reopened = {e.place for e in self.entries() if e.refused and fits(e.run)}

    def ranking(self) -> list[Entry]:
        """The candidates for the best config, the best first.

        These are the complete and feasible trials of explore and search; with two objectives,
        those that no other betters in both.
        """
        candidates = [
            entry
            for entry in self.finished("explore", "search")
            if entry.status == "complete" and self.objective.feasible(_told(entry))
        ]
        return self.objective.ranked(candidates, _told)

    def _book_name(self, stage: Stage) -> str:
        return f"{self._name}/{stage}"

    def _open_book(self, stage: Stage) -> optuna.Study:
        searching = stage == "search"
        pruner: BasePruner = NopPruner()
        if searching and self.study.asha:
            pruner = SuccessiveHalvingPruner(min_resource=1)
        directions = self.objective.directions()
        return optuna.create_study(
            storage=self._storage,
            study_name=self._book_name(stage),
            # Other stages measure everything and optimise nothing.
            directions=directions if searching else directions[:1],
            pruner=pruner,
            load_if_exists=True,
        )

    def _check_settings(self, stage: Stage, folder: Path) -> None:
        begun = self.settings
        settings = json.loads(json.dumps(self.study.settings(stage, self.seed)))
        for other in (*_RESTS_ON.get(stage, ()), stage):
            old, new = begun.get(other, settings), settings
            if other != stage:
                old, new = _shared(old, new)
            if differences := "; ".join(_differences(old, new)):
                raise InputError(
                    f"{folder}: stage {other} of this sweep was begun with other settings "
                    f"({differences}). Keep them, or begin a new version with --fresh"
                )
        if stage not in begun:
            self._books[stage].set_user_attr(_SETTINGS, settings)

    def _settle(self, book: optuna.Study) -> None:
        """Close what had its final result, and give up what had none: it is to be begun again."""
        while book.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            book.ask()
        for trial in book.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            result = trial.user_attrs.get(_RESULT, {})
            if result.get("status") in FINAL:
                self._close(book, trial.number, result)
            else:
                book.tell(trial.number, state=TrialState.FAIL)

    def _close(self, book: optuna.Study, number: int, result: Mapping[str, Any]) -> None:
        if result["status"] == "pruned":
            book.tell(number, state=TrialState.PRUNED)  # with the last value that it reported
        else:
            book.tell(number, self.objective.values(result)[: len(book.directions)])

    def _ticket(self, stage: Stage, trial: optuna.Trial) -> Ticket:
        run = self.study.run_config(trial.user_attrs[_PARAMS], trial.user_attrs[_SEED], stage)
        ticket = Ticket(stage, trial, run)
        self._live[ticket.place] = ticket
        self._reopened.discard(ticket.place)
        return ticket

    def _entry(self, stage: Stage, trial: FrozenTrial) -> Entry:
        attributes = trial.user_attrs
        place = stage, attributes[_INDEX]
        if place not in self._runs:
            # The stage may have been begun, and not be run now, with other settings than today's.
            begun = self._books[stage].user_attrs[_SETTINGS]
            values = {name: begun[name] for name in ("data", "learner", "training")}
            values["learner"] |= attributes[_PARAMS]
            values["seed"] = attributes[_SEED]
            self._runs[place] = parse(RunConfig, values, self._book_name(stage))
        status = _status(trial, place in self._live)
        return Entry(
            stage=stage,
            index=attributes[_INDEX],
            params=attributes[_PARAMS],
            run=self._runs[place],
            status="interrupted" if place in self._reopened else status,
            result=attributes.get(_RESULT),
        )

    def _to_be_pruned(self, ticket: Ticket, result: Mapping[str, Any]) -> bool:
        book = self._books[ticket.stage]
        if isinstance(book.pruner, NopPruner):
            return False
        key = self.study.data.metric.key
        for number, report in enumerate(result["reports"], 1):
            if number > ticket.reported:
                ticket.trial.report(report["metrics"][key], number)
                ticket.reported = number
        return ticket.trial.should_prune()

    def _learn_from_explore(self) -> None:
        """Show the points of explore to the sampler of search."""
        book = self._books["search"]
        known = {
            trial.user_attrs[_EXPLORED]
            for trial in book.get_trials(deepcopy=False)
            if _EXPLORED in trial.user_attrs
        }
        for entry in self.finished("explore"):
            if entry.index not in known:
                result = _told(entry)
                explored = create_trial(
                    params=entry.params,
                    distributions=space.distributions(entry.params, self.study.space),
                    values=self.objective.values(result),
                    constraints=self.objective.constraints(result),
                    user_attrs={_EXPLORED: entry.index},
                )
                book.add_trial(explored)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the sweep in `folder`: two drivers on one ledger would run each other's trials.

    Raises:
        InputError: another process holds it, or the folder cannot be written.
    """
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{folder}: this sweep is already running in another process") from None
    except PermissionError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    try:
        yield
    finally:
        lock.release()


def _open(folder: Path, url: str | None) -> BaseStorage:
    """The record that belongs to a folder: in another one all would run again."""
    journal = folder / "journal.log"
    if url is not None:
        if journal.exists() and journal.stat().st_size:
            raise InputError(f"--ledger: the record of this sweep is {journal}; leave --ledger out")
        with explained(url, "the record of a sweep"):
            return RDBStorage(url)
    if (folder / _IDENTITY).exists():
        raise InputError(f"{folder}: the record of this sweep is in a database; name its --ledger")
    try:
        _mend(journal)
        return JournalStorage(JournalFileBackend(str(journal)))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{journal}: no readable journal ({error})") from None


def _identity(folder: Path) -> str:
    """Tells the folder of a sweep from others in a database, also when it was moved."""
    path = folder / _IDENTITY
    return path.read_text() if path.exists() else uuid.uuid4().hex


def _mend(journal: Path) -> None:
    """Undo what a driver that was killed while it wrote, or wrote on a full disk, left behind.

    `only_one` has made sure that no other driver is at it.
    """
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.exists():
        with journal.open("r+b") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)


def _told(entry: Entry) -> dict[str, Any]:
    return entry.result or {}


def _latest(book: optuna.Study) -> dict[int, FrozenTrial]:
    """The trial that stands for each index: the last one, where it was begun again."""
    # One without an index was killed before it was proposed to anybody, or is from explore.
    trials = (t for t in book.get_trials(deepcopy=False) if _INDEX in t.user_attrs)
    return {trial.user_attrs[_INDEX]: trial for trial in trials}


def _status(trial: FrozenTrial, live: bool) -> Status:
    told = trial.user_attrs.get(_RESULT, {}).get("status")
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        return cast(Status, told)
    if live:
        return "running"
    return "failed" if told == "failed" else "interrupted"


def _shared(old: dict[str, Any], new: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What both have: stages differ in what decides their trials."""
    names = old.keys() & new.keys()
    return {name: old[name] for name in names}, {name: new[name] for name in names}


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(name), new.get(name), f"{path}.{name}".lstrip("."))
    elif old != new:
        yield f"{path} was {old}, is {new}"
