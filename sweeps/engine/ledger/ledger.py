"""The ledger: the one record of a sweep, from which the same command goes on."""

import itertools
import json
import re
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast, get_args

import optuna
from filelock import FileLock, Timeout
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from memmeta.config import RECORD_VERSION, RunConfig, check_version, completed, parse
from memmeta.errors import InputError
from memmeta.system.files import whole
from sweeps.engine.ledger.journal import Steadily, SteadyJournal
from sweeps.engine.stores.store import explained
from sweeps.engine.study import design, space
from sweeps.engine.study.objective import Objective
from sweeps.engine.study.outcome import FINAL, Stage, Status
from sweeps.engine.study.study import Study, recorded_settings

STAGES: tuple[Stage, ...] = get_args(Stage)

_SETTINGS = "settings"
# User attributes of a trial: its place in its stage, its point of the space, its training seed, and
# what it reported last without its validations. Each of these has its own: see `_validation`. A
# trial that `search` learned from `explore` has its place there.
_INDEX, _PARAMS, _SEED, _RESULT, _EXPLORED = "index", "params", "seed", "result", "explored"
# Of a stage in a database: the identity of the sweep's folder, and the file of every folder that
# has it. A folder that is moved or copied keeps it.
_FOLDER, _IDENTITY = "folder", "ledger.id"

_VERSION = "version"
"""User attribute of a stage: the `RECORD_VERSION` of the program that last wrote to it."""

_LONGEST_MESSAGE = 20_000
"""Characters of a trial's message: a MySQL ledger takes 64 KiB a value."""

_PROPOSALS = 5
"""Times that the sampler is asked for a config that is not known yet."""

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

    @cached_property
    def key(self) -> str:
        """`RunConfig.key`, made once."""
        return self.run.key

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
        self.recorded = 0  # how many of its validations are in the ledger
        self.judged = 0  # how many of them the pruner has seen

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
        steadily: Steadily = lambda act: act(),
    ) -> None:
        """Open the ledger of a sweep, or begin one.

        Args:
            study: the study.
            seed: of the sweep.
            folder: of the sweep; the journal is in it.
            url: of a database that holds the ledger instead, as SQLAlchemy has it.
            stages: those that are to be run.
            name: of the sweep; the study's for this seed by default.
            steadily: reads and writes the journal, as `SweepFolder.steadily`.

        Raises:
            InputError: the sweep was begun with other settings, its record is not the one that
                belongs to `folder`, or cannot be read.
        """
        self.seed = seed
        self._name = name or study.sweep_name(seed)
        self._live: dict[tuple[Stage, int], Ticket] = {}
        self._reopened: set[tuple[Stage, int]] = set()
        self._runs: dict[tuple[Stage, int], RunConfig] = {}
        self._finished: dict[tuple[Stage, int], Entry] = {}
        self._storage = _open(folder, url, steadily)
        with _damage_in_one_line(folder):
            summaries = optuna.get_all_study_summaries(self._storage)
            begun = {summary.study_name: summary.user_attrs for summary in summaries}
        self.identity = _identity(folder)
        self._owner = None if url is None else self.identity
        for stage in STAGES:
            if begun.get(self._book_name(stage), {}).get(_FOLDER, self._owner) != self._owner:
                raise InputError(
                    f"--ledger: {self._name} in this database is the record of another folder than "
                    f"{folder}. Name that one's --storage, or another database"
                )
        self.study = study
        self.objective = Objective(study.data.metric, study.objective, study.memory_limit)
        self._books = {
            stage: self._open_book(stage) for stage in STAGES if self._book_name(stage) in begun
        }
        if not self._books and _has_content(folder / "checkpoints"):
            raise InputError(
                f"{folder}: has checkpoints of trials, and their record is empty. Restore the "
                f"record from a copy, remove {folder / 'checkpoints'} to run all trials again, or "
                "begin a new version with --fresh"
            )
        with _damage_in_one_line(folder):
            for stage, book in self._books.items():
                check_version(book.user_attrs, f"{folder}: stage {stage}")
            self.study = study.continuing(self.settings.values())
            for stage in stages:
                self._check_settings(stage, folder)
        if not (folder / _IDENTITY).exists():
            with whole(folder / _IDENTITY) as file:
                file.write(self.identity.encode())
        with _damage_in_one_line(folder):
            for book in self._books.values():
                self._settle(book)
            self._numbers = {stage: _numbers(book) for stage, book in self._books.items()}
            self.ranking()

    @property
    def settings(self) -> dict[Stage, dict[str, Any]]:
        """With what each stage was begun."""
        begun = {stage: book.user_attrs for stage, book in self._books.items()}
        return {stage: of[_SETTINGS] for stage, of in begun.items() if _SETTINGS in of}

    @cached_property
    def configs(self) -> list[dict[str, Any]] | None:
        """The params of every config in the space; None if it is not small."""
        return design.all_configs(self.study)

    def entries(self, *stages: Stage) -> list[Entry]:
        """All trials of the stages (of all stages by default), in the order of their indices."""
        found = []
        for stage in stages or STAGES:
            numbers = self._numbers.get(stage, {})
            # Read once for all that the cache does not have.
            missing = any((stage, index) not in self._finished for index in numbers)
            trials = self._trials(stage) if missing else []
            found += [self._entry((stage, index), trials) for index in sorted(numbers)]
        return found

    def points(self, *stages: Stage) -> set[Hashable]:
        """What `space.point` gives for the trials of the stages."""
        return {space.point(entry.params) for entry in self.entries(*stages)}

    def finished(self, *stages: Stage) -> list[Entry]:
        """The trials that have their final result."""
        return [entry for entry in self.entries(*stages) if entry.finished]

    def entry(self, place: tuple[Stage, int]) -> Entry:
        """One trial."""
        return self._entry(place, self._trials(place[0]))

    def begin(self, stage: Stage, index: int, params: Mapping[str, Any], seed: int) -> Ticket:
        """Begin a trial whose point is known, or begin an interrupted one again."""
        book = self._book(stage)
        attributes = {_INDEX: index, _PARAMS: dict(params), _SEED: seed}
        book.enqueue_trial(dict(params), attributes)
        trial = book.ask()
        if stage not in ("tune", "grid"):  # whose values the study's space may not have
            space.suggest(trial, self.study.space, self.study.learner)
        return self._ticket(stage, trial)

    def propose(self) -> Ticket:
        """Begin a trial of stage search, at a new point that the sampler chooses.

        If the sampler insists on points that are known, the next new one of a Sobol design is
        taken. There has to be one: see `configs`.
        """
        book = self._book("search")
        self._learn_from_explore()
        known = self.points("explore", "search")
        index = len(self._numbers["search"])
        for attempt in range(_PROPOSALS):
            # Seeded by the trial's place, so that a restart proposes what would have come anyway.
            seed = (10_000 * self.seed + index + 1_000_003 * attempt) % 2**32
            book.sampler = _SAMPLERS[self.study.sampler](seed=seed)
            trial = book.ask()
            params = space.suggest(trial, self.study.space, self.study.learner)
            if space.point(params) not in known:
                trial.set_user_attr(_PARAMS, params)
                trial.set_user_attr(_SEED, self.seed)
                trial.set_user_attr(_INDEX, index)  # the last one: without it it does not count
                return self._ticket("search", trial)
            book.tell(trial.number, state=TrialState.FAIL)
        params = design.new_point(self.study, self.seed, index, known, self.configs)
        return self.begin("search", index, params, self.seed)

    def report(self, ticket: Ticket, result: Mapping[str, Any]) -> Entry:
        """Record what a trial says, and close it if that is final.

        A trial that is not worth going on with becomes `pruned`. An infeasible one is told to the
        sampler with a violated constraint, so that it learns where not to go.
        """
        result = dict(result)
        if result["status"] == "running" and self._to_be_pruned(ticket, result["reports"]):
            result["status"] = "pruned"
        if "message" in result:
            result["message"] = result["message"][-_LONGEST_MESSAGE:]
        # One by one: to write all of them with every report would take quadratic space.
        validations = result.pop("reports")
        for number in range(ticket.recorded, len(validations)):
            ticket.trial.set_user_attr(_validation(number), validations[number])
        ticket.recorded = len(validations)
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

    def check_data(self, digest: str) -> None:
        """Refuse to mix results on different data.

        Args:
            digest: SHA-256 of the data set that trials would now be trained on.

        Raises:
            InputError: a trial of this sweep was trained on other data.
        """
        for entry in self.entries():
            known = (entry.result or {}).get("data_digest")
            if known is not None and known != digest:
                raise InputError(
                    f"{self._name}: {entry.name} was trained on other data "
                    f"({self.study.data.name} had the digest {str(known)[:12]}, and has "
                    f"{digest[:12]}). Bring the old data back, or begin a new version with --fresh"
                )

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

    def _book(self, stage: Stage) -> optuna.Study:
        """The Optuna study of a stage, begun now if this is its first trial."""
        if stage not in self._books:
            self._books[stage] = self._open_book(stage)
            self._numbers[stage] = {}
        book = self._books[stage]
        if _SETTINGS not in book.user_attrs:
            book.set_user_attr(_SETTINGS, self._settings(stage))
            if self._owner:
                book.set_user_attr(_FOLDER, self._owner)
        if book.user_attrs.get(_VERSION) != RECORD_VERSION:
            book.set_user_attr(_VERSION, RECORD_VERSION)
        return book

    def _settings(self, stage: Stage) -> dict[str, Any]:
        """What a stage is begun with, as JSON has it."""
        settings: dict[str, Any] = json.loads(json.dumps(self.study.settings(stage, self.seed)))
        return settings

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
        begun, settings = self.settings, self._settings(stage)
        for other in (*_RESTS_ON.get(stage, ()), stage):
            if other not in begun:
                continue
            old, new = recorded_settings(begun[other], f"{folder}: stage {other}"), settings
            if other != stage:
                old, new = _shared(old, new)
            if differences := "; ".join(_differences(old, new)):
                raise InputError(
                    f"{folder}: stage {other} of this sweep was begun with other settings "
                    f"({differences}). Keep them, or begin a new version with --fresh"
                )

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
        self._finished.pop(ticket.place, None)
        self._numbers[stage][ticket.index] = trial.number
        return ticket

    def _trials(self, stage: Stage) -> list[FrozenTrial]:
        return self._books[stage].get_trials(deepcopy=False)

    def _entry(self, place: tuple[Stage, int], trials: list[FrozenTrial]) -> Entry:
        """A trial, given those of its stage."""
        entry = self._finished.get(place) or self._read(place, trials)
        if entry.finished:
            self._finished[place] = entry
        return replace(entry, status="interrupted") if place in self._reopened else entry

    def _read(self, place: tuple[Stage, int], trials: list[FrozenTrial]) -> Entry:
        stage, index = place
        trial = trials[self._numbers[stage][index]]
        attributes = trial.user_attrs
        if place not in self._runs:
            # The stage may have been begun, and not be run now, with other settings than today's.
            begun = self._books[stage].user_attrs[_SETTINGS]
            values = {name: begun[name] for name in ("data", "learner", "training")}
            values["learner"] = values["learner"] | attributes[_PARAMS]
            values["seed"] = attributes[_SEED]
            record = completed(RunConfig, values)
            self._runs[place] = parse(RunConfig, record, self._book_name(stage))
        return Entry(
            stage=stage,
            index=index,
            params=attributes[_PARAMS],
            run=self._runs[place],
            status=_status(trial, place in self._live),
            result=_result(trial),
        )

    def _to_be_pruned(self, ticket: Ticket, validations: Sequence[Mapping[str, Any]]) -> bool:
        book = self._books[ticket.stage]
        if isinstance(book.pruner, NopPruner):
            return False
        key = self.study.data.metric.key
        for number in range(ticket.judged, len(validations)):
            ticket.trial.report(validations[number]["metrics"][key], number + 1)
        ticket.judged = len(validations)
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
    except (PermissionError, IsADirectoryError, FileExistsError) as error:
        raise InputError(f"{lock.lock_file}: cannot be written ({error.strerror})") from None
    try:
        yield
    finally:
        lock.release()


def _open(folder: Path, url: str | None, steadily: Steadily) -> BaseStorage:
    """The record that belongs to a folder: in another one all would run again."""
    journal = folder / "journal.log"
    if url is not None:
        if journal.exists() and journal.stat().st_size:
            raise InputError(f"--ledger: the record of this sweep is {journal}; leave --ledger out")
        with explained(url, "the record of a sweep"):
            return RDBStorage(url)
    if (folder / _IDENTITY).exists() and not journal.exists():
        raise InputError(
            f"{folder}: the record of this sweep is in a database; name its --ledger. "
            f"If it was never in one, {journal.name} is lost: begin a new version with --fresh"
        )
    if journal.exists() and not journal.is_file():
        raise InputError(f"{journal}: not a file. {_ANOTHER_RECORD}")
    try:
        _mend(journal)
        _check_lines(journal)
        return JournalStorage(SteadyJournal(str(journal), steadily))
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{journal}: cannot be read ({error.strerror})") from None
    # A record that Optuna does not know fails wherever it is first missed.
    except Exception:
        raise InputError(
            f"{journal}: has records that this version of Optuna ({optuna.__version__}) does not "
            f"know. {_ANOTHER_RECORD}"
        ) from None


_ANOTHER_RECORD = "Restore it from a copy, or begin a new version of the sweep with --fresh"


@contextmanager
def _damage_in_one_line(folder: Path) -> Iterator[None]:
    """Values in a record may be anything, if somebody or something has changed it."""
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise InputError(
            f"{folder}: the record of this sweep is damaged ({str(error)[:200]}). {_ANOTHER_RECORD}"
        ) from None


def _check_lines(journal: Path) -> None:
    """Refuse what is no journal.

    Raises:
        InputError: a line is not a record.
    """
    if not journal.exists():
        return
    with journal.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                known = isinstance(json.loads(line)["op_code"], int)
            except (ValueError, TypeError, LookupError, RecursionError):
                known = False
            if not known:
                raise InputError(f"{journal}: line {number} is not a record. {_ANOTHER_RECORD}")


def _identity(folder: Path) -> str:
    """Tells the folder of a sweep from others in a store, also when it was moved."""
    path = folder / _IDENTITY
    try:
        identity = path.read_bytes()
    except FileNotFoundError:
        return uuid.uuid4().hex
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not re.fullmatch(rb"[0-9a-f]{32}", identity):
        raise InputError(
            f"{path}: damaged. Restore it from a copy, or remove it; then MLflow shows the sweep "
            "as a new one"
        )
    return identity.decode()


def _mend(journal: Path) -> None:
    """Undo what a driver that was killed while it wrote, or wrote on a full disk, left behind.

    `only_one` has made sure that no other driver is at it.
    """
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.exists():
        with journal.open("r+b") as file:
            content = file.read()
            records = content[: content.rfind(b"\n") + 1].rstrip()  # editors add blank lines
            file.truncate(len(records) + 1 if records else 0)


def _told(entry: Entry) -> dict[str, Any]:
    return entry.result or {}


def _has_content(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _numbers(book: optuna.Study) -> dict[int, int]:
    """The number of the trial that stands for each index: the last one, if it was begun again."""
    # One without an index was never given to a worker, or shows explore's result to the sampler.
    trials = (t for t in book.get_trials(deepcopy=False) if _INDEX in t.user_attrs)
    return {int(trial.user_attrs[_INDEX]): trial.number for trial in trials}


def _validation(number: int) -> str:
    """The user attribute of a trial's validation, counted from 0."""
    return f"report {number}"


def _result(trial: FrozenTrial) -> dict[str, Any] | None:
    """What a trial reported last, with all its validations."""
    attributes = trial.user_attrs
    result: dict[str, Any] | None = attributes.get(_RESULT)
    if result is None or "reports" in result:  # the form of version 1
        return result
    names = itertools.takewhile(attributes.__contains__, map(_validation, itertools.count()))
    return {**result, "reports": [attributes[name] for name in names]}


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
