"""The ledger: the one record of a sweep, from which the same command goes on."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from memmeta.errors import InputError
from sweeps.engine.outcome import INFEASIBLE
from sweeps.engine.study import Study

_SETTINGS = "settings"
_KEY = "key"
_RESULT = "result"


class Ledger:
    """An Optuna study in an append-only journal file.

    A trial is RUNNING from `ask` to `tell`. What is RUNNING when a ledger is opened was
    interrupted: it becomes FAIL and its parameters are queued again. Trials that are COMPLETE
    never run again.

    Attributes:
        metric: the value of a trial.
    """

    def __init__(self, study: Study, seed: int, folder: Path) -> None:
        """Open the ledger in `folder`, or begin one.

        Raises:
            InputError: the sweep was begun with other settings, or the journal cannot be read.
        """
        self._study = study
        self._seed = seed
        self.metric = study.data.metric
        try:
            storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
            self._optuna = optuna.create_study(
                storage=storage,
                study_name=study.sweep_name(seed),
                direction=self.metric.direction,
                load_if_exists=True,
            )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder / 'journal.log'}: no readable journal ({error})") from None
        self._check_settings(study.settings(seed), folder)
        self._requeue_interrupted()

    @property
    def finished(self) -> list[FrozenTrial]:
        """Trials that have a result, in the order they were begun."""
        return self._optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    @property
    def ranked(self) -> list[FrozenTrial]:
        """The complete ones, the best first."""
        complete = [trial for trial in self.finished if result_of(trial)["status"] == "complete"]
        return sorted(complete, key=lambda trial: self.metric.order(trial.values[0]))

    def ask(self) -> tuple[optuna.Trial, dict[str, Any]]:
        """The next trial, and its run as a dict of `RunConfig`."""
        # Seeded by the trial's place, so that a restart proposes what would have come anyway.
        interrupted = self._optuna.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        place = len(self._optuna.get_trials(deepcopy=False)) - len(interrupted)
        self._optuna.sampler = optuna.samplers.TPESampler(seed=10_000 * self._seed + place)
        trial = self._optuna.ask(dict(self._study.space))
        run = self._study.run_config(trial.params, self._seed)
        trial.set_user_attr(_KEY, run.key)
        return trial, run.model_dump()

    def tell(self, trial: optuna.Trial, result: Mapping[str, Any]) -> None:
        """Record the final result of a trial.

        One that is infeasible counts as a trial too, with a violated constraint: the sampler
        learns where not to go, and the ranking leaves it out.
        """
        status = result["status"]
        infeasible = status in INFEASIBLE
        for name in INFEASIBLE:
            trial.set_constraint(name, float(name == status))
        trial.set_user_attr(_RESULT, dict(result))
        value = self.metric.worst if infeasible else result["metrics"][self.metric.key]
        self._optuna.tell(trial, value)

    def _check_settings(self, settings: dict[str, Any], folder: Path) -> None:
        begun = self._optuna.user_attrs.get(_SETTINGS)
        if begun is None:
            self._optuna.set_user_attr(_SETTINGS, settings)
        elif begun != json.loads(json.dumps(settings)):
            differences = "; ".join(_differences(begun, settings))
            raise InputError(
                f"{folder}: this sweep was begun with other settings ({differences}). "
                "Keep them, or use another --storage"
            )

    def _requeue_interrupted(self) -> None:
        for trial in self._optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._optuna.tell(trial.number, state=TrialState.FAIL)
            self._optuna.enqueue_trial(trial.params)


def result_of(trial: FrozenTrial) -> dict[str, Any]:
    """What the finished trial reported last."""
    result: dict[str, Any] = trial.user_attrs[_RESULT]
    return result


def key_of(trial: FrozenTrial) -> str:
    """The key of the trial's run."""
    key: str = trial.user_attrs[_KEY]
    return key


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the sweep in `folder`: two drivers on one ledger would run each other's trials.

    Raises:
        InputError: another process holds it.
    """
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{folder}: this sweep is already running in another process") from None
    try:
        yield
    finally:
        lock.release()


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(name), new.get(name), f"{path}.{name}".lstrip("."))
    elif old != new:
        yield f"{path} was {old}, is {new}"
