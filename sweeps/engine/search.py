"""Ray Tune's view of the ledger."""

from typing import Any

import optuna
from ray.tune.experiment import Trial
from ray.tune.search import Searcher
from ray.tune.utils.util import unflatten_dict

from memmeta.config import RunConfig
from sweeps.engine.ledger import Ledger
from sweeps.engine.outcome import outcome
from sweeps.engine.unsaved import Unsaved


class LedgerSearch(Unsaved, Searcher):
    """Takes every trial from the ledger and brings its result back.

    `tune.search.optuna.OptunaSearch` records a trial that failed as FAIL, which samplers ignore,
    and has no place for constraints; nor can it go on with an interrupted study.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self._asked: dict[str, optuna.Trial] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The Tune config of a new trial: its number in the ledger and its run."""
        trial, run = self._ledger.ask()
        self._asked[trial_id] = trial
        return {"number": trial.number, "run": run}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record a result. A failure is none: the trial stays open for the next start."""
        trial = self._asked.pop(trial_id)
        if result and not error and result["status"] != "failed":
            # Tune hands searchers its results flattened.
            self._ledger.tell(trial, outcome(unflatten_dict(result)))

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def run_of(trial: Trial) -> RunConfig:
    """The run of a Tune trial that `LedgerSearch.suggest` proposed."""
    return RunConfig.model_validate(trial.config["run"])
