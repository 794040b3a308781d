"""The schedule: which trial comes next, in the stages of a sweep and within its budget."""

import itertools
from typing import Any, Literal

from sweeps.engine.ledger.entry import Entry, RunningTrial, Slot
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.study import design
from sweeps.engine.study.outcome import Stage
from sweeps.engine.study.study import Study

_CONFIRMED = 5
"""Maximum number of configs in stage confirm."""

_DEPENDENT: tuple[Stage, ...] = ("confirm", "grid")
"""Stages whose trials depend on the results of earlier stages."""

_EXPLORING: tuple[Stage, ...] = ("explore", "search")
"""Stages that draw new configs from the space. Each config runs once."""

Choice = Literal["explore", "search", "confirm", "grid", "all"]
"""A stage, or `all` for explore, search and confirm within one budget."""

PlannedTrial = tuple[dict[str, Any], int]
"""Params and training seed of a trial that is known before it starts."""

Quotas = dict[Stage, int]
"""Number of trials of each stage to run, in the order of the stages."""


def quotas(study: Study, choice: Choice, trials: int) -> Quotas:
    """Divide the budget between the stages.

    For `all`, search gets a quarter of the trials and confirm gets up to a quarter: at most the
    best five configs, each with all training seeds if there are enough trials for one config. For
    `grid`, the study determines the number of trials.

    Args:
        study: the study.
        choice: the stages to run.
        trials: the budget.
    """
    if choice == "grid":
        cells = design.grid_cells(study)
        tuning: Quotas = {"tune": sum(map(len, cells))} if study.tuned else {}
        return {**tuning, "grid": len(cells) * study.seeds}
    if choice == "confirm":
        return {"confirm": min(trials, _CONFIRMED * study.seeds)}
    if choice != "all":
        return {choice: trials}
    search = trials // 4
    confirm = min(search, _CONFIRMED * study.seeds)
    confirm -= confirm % study.seeds if confirm > study.seeds else 0
    return {"explore": trials - search - confirm, "search": search, "confirm": confirm}


class Schedule:
    """The trials that are still to run.

    Attributes:
        quotas: number of trials of each stage.
    """

    def __init__(self, ledger: Ledger, quotas: Quotas) -> None:
        self.quotas = quotas
        self._ledger = ledger
        # This process starts a trial only once, even if its worker is lost.
        self._started: set[Slot] = set()
        self._grid = design.grid_cells(ledger.study) if "grid" in quotas else []

    @property
    def total(self) -> int:
        """Number of trials of all stages."""
        return sum(map(self.quota, self.quotas))

    def quota(self, stage: Stage) -> int:
        """Number of trials of a stage. It is less than planned if there are too few configs."""
        quota = self.quotas[stage]
        if stage in _EXPLORING:
            return min(quota, max(self.done(stage), self._available(stage)))
        if stage in _DEPENDENT and self._ready(stage):
            return min(quota, max(self.done(stage), len(self._planned(stage))))
        return quota

    @property
    def exhausted(self) -> dict[Stage, int]:
        """Stages that end early because the space has no more configs, and their trial counts."""
        ends: dict[Stage, int] = {s: self.quota(s) for s in self.quotas if s in _EXPLORING}
        return {stage: end for stage, end in ends.items() if end < self.quotas[stage]}

    def _available(self, stage: Stage) -> int:
        """Number of configs that explore or search can run, without those of the other stage."""
        if self._ledger.configs is None:
            return self.quotas[stage]
        explored = self._ledger.known_params("explore")
        searched = self._ledger.known_params("search")
        left = len(self._ledger.configs) - len(explored | searched)
        if stage == "explore":
            return len(explored) + left
        planned = self.quota("explore") - len(explored) if "explore" in self.quotas else 0
        return len(searched) + left - max(0, planned)

    def done(self, *stages: Stage) -> int:
        """Number of trials of the stages (default: all stages) that have their final result."""
        return sum(
            min(self.quotas[stage], sum(entry.finished for entry in self._entries(stage)))
            for stage in stages or self.quotas
        )

    @property
    def finished(self) -> bool:
        """Whether all trials are done."""
        return self.done() >= self.total

    @property
    def unscored(self) -> list[Entry]:
        """Complete trials of stage confirm without a score on a data set of `Study.evaluate_on`."""
        others = set(self._ledger.study.evaluate_on)
        entries = self._entries("confirm") if "confirm" in self.quotas else []
        return [
            entry
            for entry in entries
            if entry.status == "complete"
            and not others <= entry.reported.get("other_digests", {}).keys()
        ]

    @property
    def lost_cells(self) -> int:
        """Number of cells of a tuned grid in which no trial of stage tune completed."""
        tuned = "tune" in self.quotas and self._ready("grid")
        return len(self._grid) - len(self._best_of_cells()) if tuned else 0

    def next(self) -> RunningTrial | Literal["wait", "finished"]:
        """Start the next trial, unless it must wait for the result of a running one."""
        for stage in self.quotas:
            if stage in _DEPENDENT and not self._ready(stage):
                break
            entries = self._entries(stage)
            begun = sum(entry.finished or entry.slot in self._started for entry in entries)
            trial = self._begin(stage, entries) if begun < self.quota(stage) else None
            if trial:
                self._started.add(trial.slot)
                return trial
        running = any(entry.status == "running" for entry in self._ledger.entries())
        return "wait" if running else "finished"

    def _begin(self, stage: Stage, entries: list[Entry]) -> RunningTrial | None:
        for entry in entries:
            if not entry.finished and entry.slot not in self._started:
                return self._ledger.begin(stage, entry.index, entry.params, entry.run.seed)
        if stage == "search":
            return self._ledger.propose()
        if stage == "explore":
            return self._begin_explore(index=len(entries))
        begun = [(entry.params, entry.run.seed) for entry in self._ledger.entries(stage)]
        for params, seed in self._planned(stage):
            if (params, seed) not in begun:
                return self._ledger.begin(stage, len(begun), params, seed)
        return None

    def _begin_explore(self, index: int) -> RunningTrial:
        """Start the next point of the design that is a new config."""
        ledger = self._ledger
        known = ledger.known_params(*_EXPLORING)
        params = design.new_point(ledger.study, ledger.seed, index, known, ledger.configs)
        return ledger.begin("explore", index, params, ledger.seed)

    def _entries(self, stage: Stage) -> list[Entry]:
        """The trials of this schedule.

        The record may hold others: of another grid, or of a smaller budget with other best configs.
        """
        entries = self._ledger.entries(stage)
        if entries and stage not in _EXPLORING:
            planned = self._planned(stage)
            entries = [e for e in entries if (e.params, e.run.seed) in planned]
        return entries

    def _ready(self, stage: Stage) -> bool:
        """Whether all earlier stages are done."""
        before = itertools.takewhile(lambda other: other != stage, self.quotas)
        return all(self.done(other) >= self.quota(other) for other in before)

    def _planned(self, stage: Stage) -> list[PlannedTrial]:
        """The trials of stage tune, grid or confirm that are known so far.

        Configs that were selected with the sweep's seed are trained with fresh seeds.
        """
        study, seed = self._ledger.study, self._ledger.seed
        if stage == "tune":
            return [(params, seed) for cell in self._grid for params in cell]
        if stage == "grid":
            first = seed + 1 if study.tuned else seed
            seeds = range(first, first + study.seeds)
            return [(params, fresh) for fresh in seeds for params in self._best_of_cells()]
        seeds = range(seed + 1, seed + 1 + study.seeds)
        return [(params, fresh) for params in self._best_params() for fresh in seeds]

    def _best_params(self) -> list[dict[str, Any]]:
        """Params of the best configs of explore and search, without duplicates."""
        best: list[dict[str, Any]] = []
        for entry in self._ledger.ranking():
            if len(best) < _CONFIRMED and entry.params not in best:
                best.append(entry.params)
        return best

    def _best_of_cells(self) -> list[dict[str, Any]]:
        """The best params of each cell of the grid. Cells without a complete trial are left out."""
        if not self._ledger.study.tuned:
            return [params for (params,) in self._grid]
        complete = [e for e in self._ledger.finished("tune") if e.status == "complete"]
        cells = ([e for e in complete if e.params in cell] for cell in self._grid)
        return [min(entries, key=self._cost).params for entries in cells if entries]

    def _cost(self, entry: Entry) -> float:
        metric = self._ledger.objective.metric
        return metric.order(entry.reported["metrics"][metric.key])
