"""The record of one stage: an Optuna study with user attributes.

The names of the user attributes are part of the stored record. Do not rename them.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import optuna
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from memmeta.config import RECORD_VERSION, LearnerConfig, renewed
from sweeps.engine.ledger.entry import Entry, RunningTrial
from sweeps.engine.ledger.settings import Settings
from sweeps.engine.study.objective import Objective
from sweeps.engine.study.outcome import FINAL, Stage, Status
from sweeps.engine.study.result import TrialResult, Validation
from sweeps.engine.study.space import distributions
from sweeps.engine.study.study import Study

# User attributes of a trial.
INDEX = "index"
PARAMS = "params"
SEED = "seed"
SAMPLER = "sampler"
"""In stage search: `Study.sampler` of a proposal. It may change when a sweep continues."""
_EXPLORED = "explored"
"""In stage search, on a copy of a trial of stage explore: the index of that trial."""
_RESULT = "result"
"""The last result without its validations. Each validation has its own user attribute."""

# User attributes of a stage.
SETTINGS = "settings"
FOLDER = "folder"
"""In a database: the identity of the sweep's folder."""
_VERSION = "version"
"""`RECORD_VERSION` of the program that last wrote to the stage."""

_LONGEST_MESSAGE = 20_000
"""Maximum length of a trial's message. A MySQL database takes 64 KiB per value."""


def params_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The params of a trial with these user attributes, under the present names of the fields."""
    return renewed(LearnerConfig, attributes[PARAMS])


class StageRecord:
    """The trials of a stage.

    Attributes:
        optuna_study: holds the trials. A trial that runs again is a new Optuna trial with the same
            index.
        numbers: the number of the Optuna trial of each index.
    """

    def __init__(self, optuna_study: optuna.Study) -> None:
        self.optuna_study = optuna_study
        self.numbers: dict[int, int] = {}

    @property
    def settings(self) -> Settings | None:
        """The settings with which the stage was started, or None if it has no trials."""
        return self.optuna_study.user_attrs.get(SETTINGS)

    def prepare(self, settings: Settings, owner: str | None) -> None:
        """Record settings and version before a trial starts.

        Args:
            settings: settings of the stage; recorded with the first trial.
            owner: identity of the sweep's folder if the record is in a database.
        """
        attributes = self.optuna_study.user_attrs
        if self.settings is None:
            self.optuna_study.set_user_attr(SETTINGS, settings)
            if owner:
                self.optuna_study.set_user_attr(FOLDER, owner)
        if attributes.get(_VERSION) != RECORD_VERSION:
            self.optuna_study.set_user_attr(_VERSION, RECORD_VERSION)

    def trials(self) -> list[FrozenTrial]:
        """All Optuna trials, by number."""
        return self.optuna_study.get_trials(deepcopy=False)

    def settle(self, objective: Objective) -> None:
        """Close the trials that a previous driver left open: they ended, or were interrupted."""
        study = self.optuna_study
        while study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            study.ask()
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            result = trial.user_attrs.get(_RESULT, {})
            if result.get("status") in FINAL:
                self._close(trial.number, result, objective)
            else:
                study.tell(trial.number, state=TrialState.FAIL)
        # A trial without an index never reached a worker, or is a copy of a trial of explore.
        trials = [trial for trial in self.trials() if INDEX in trial.user_attrs]
        # A finished trial that was interrupted when it ran again keeps its result: it comes last.
        trials.sort(key=lambda trial: trial.state in (TrialState.COMPLETE, TrialState.PRUNED))
        self.numbers = {int(trial.user_attrs[INDEX]): trial.number for trial in trials}

    def record(self, running: RunningTrial, result: TrialResult, objective: Objective) -> None:
        """Record a result, and close the trial if the result is final.

        An infeasible trial is recorded with a violated constraint, so that the sampler avoids such
        params.

        Args:
            running: the trial.
            result: its result.
            objective: converts the result to Optuna's values and constraints.
        """
        trial = running.optuna_trial
        stored: dict[str, Any] = {k: v for k, v in result.items() if k != "reports"}
        if "message" in result:
            stored["message"] = result["message"][-_LONGEST_MESSAGE:]
        # Writing all validations with every report would take quadratic space.
        validations = result["reports"]
        for number in range(running.recorded, len(validations)):
            trial.set_user_attr(_validation_name(number), validations[number])
        running.recorded = len(validations)
        final = result["status"] in FINAL
        if final:
            for name, violation in objective.constraints(result).items():
                trial.set_constraint(name, violation)
        # If the driver is killed before it closes the trial, `settle` closes it.
        trial.set_user_attr(_RESULT, stored)
        if final:
            self._close(trial.number, result, objective)

    def should_prune(
        self, running: RunningTrial, validations: Sequence[Validation], metric: str
    ) -> bool:
        """Whether the pruner decides that a trial should stop.

        Args:
            running: the trial.
            validations: all its validations so far.
            metric: key of the metric in a validation.
        """
        if isinstance(self.optuna_study.pruner, NopPruner):
            return False
        for number in range(running.shown_to_pruner, len(validations)):
            running.optuna_trial.report(validations[number]["metrics"][metric], number + 1)
        running.shown_to_pruner = len(validations)
        return running.optuna_trial.should_prune()

    def add_explored(self, explored: Iterable[Entry], study: Study, objective: Objective) -> None:
        """Copy finished trials of stage explore to the record of stage search, for the sampler.

        Args:
            explored: finished trials of explore. Those that were copied before are skipped.
            study: defines the space.
            objective: converts results to Optuna's values and constraints.
        """
        known = {
            trial.user_attrs[_EXPLORED] for trial in self.trials() if _EXPLORED in trial.user_attrs
        }
        for entry in explored:
            if entry.index not in known:
                copy = create_trial(
                    params=entry.params,
                    distributions=distributions(entry.params, study.space),
                    values=objective.values(entry.reported),
                    constraints=objective.constraints(entry.reported),
                    user_attrs={_EXPLORED: entry.index},
                )
                self.optuna_study.add_trial(copy)

    def _close(self, number: int, result: TrialResult, objective: Objective) -> None:
        if result["status"] == "pruned":
            # Optuna takes the last value that was reported to the pruner.
            self.optuna_study.tell(number, state=TrialState.PRUNED)
        else:
            values = objective.values(result)[: len(self.optuna_study.directions)]
            self.optuna_study.tell(number, values)


def open_stage(
    storage: BaseStorage, name: str, stage: Stage, study: Study, objective: Objective
) -> StageRecord:
    """Open the record of a stage, or start one.

    Args:
        storage: the sweep's storage.
        name: name of the stage's Optuna study.
        stage: the stage.
        study: decides about early stopping.
        objective: decides the directions.
    """
    searching = stage == "search"
    pruner: BasePruner = NopPruner()
    if searching and study.asha:
        pruner = SuccessiveHalvingPruner(min_resource=1)
    directions = objective.directions()
    optuna_study = optuna.create_study(
        storage=storage,
        study_name=name,
        # The other stages optimise nothing, so one value is enough.
        directions=directions if searching else directions[:1],
        pruner=pruner,
        load_if_exists=True,
    )
    return StageRecord(optuna_study)


def result_of(trial: FrozenTrial) -> TrialResult | None:
    """The last result of a trial, with all its validations."""
    attributes: Mapping[str, Any] = trial.user_attrs
    result = attributes.get(_RESULT)
    if result is None or "reports" in result:  # records of version 1 hold the validations
        return cast(TrialResult | None, result)
    names = itertools.takewhile(attributes.__contains__, map(_validation_name, itertools.count()))
    reports: list[Validation] = [attributes[name] for name in names]
    return cast(TrialResult, {**result, "reports": reports})


def status_of(trial: FrozenTrial, running: bool) -> Status:
    """The status of a trial; `running` says whether this process runs it."""
    reported = trial.user_attrs.get(_RESULT, {}).get("status")
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        return cast(Status, reported)
    if running:
        return "running"
    return "failed" if reported == "failed" else "interrupted"


def _validation_name(number: int) -> str:
    """The user attribute of a validation, counted from 0."""
    return f"report {number}"
