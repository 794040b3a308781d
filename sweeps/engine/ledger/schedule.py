"""Which trial comes next: the stages of a sweep within its budget."""

import itertools
from typing import Any, Literal

from sweeps.engine.ledger.ledger import Entry, Ledger, Ticket
from sweeps.engine.study import design
from sweeps.engine.study.outcome import Stage
from sweeps.engine.study.study import Study

_CONFIRMED = 5
"""Configs that are confirmed at most."""

_WAITING: tuple[Stage, ...] = ("confirm", "grid")
"""Stages whose trials depend on what those before them have found."""

_CHOOSING: tuple[Stage, ...] = ("explore", "search")
"""Stages that choose their own configs, each only once."""

Choice = Literal["explore", "search", "confirm", "grid", "all"]
"""A stage, or explore, search and confirm within one budget."""

Cell = tuple[dict[str, Any], int]
"""A point of the space and a training seed."""

Quotas = dict[Stage, int]
"""Trials of each stage that is to be run, in the order in which they are."""


def quotas(study: Study, choice: Choice, trials: int) -> Quotas:
    """How the budget is divided.

    Of the budget of `all` a quarter goes to search, and up to a quarter to confirm: the best five
    configs at most, each with all seeds if there is room for one. Of a grid the study says how
    many there are.
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
    """The trials that are still to be run.

    Attributes:
        quotas: trials of each stage.
    """

    def __init__(self, ledger: Ledger, quotas: Quotas) -> None:
        self.quotas = quotas
        self._ledger = ledger
        self._given: set[tuple[Stage, int]] = set()  # begun by this process, each once
        self._grid = design.grid_cells(ledger.study) if "grid" in quotas else []

    @property
    def total(self) -> int:
        """Trials of all stages."""
        return sum(map(self.quota, self.quotas))

    def quota(self, stage: Stage) -> int:
        """Trials of a stage; fewer where there are not as many configs to run."""
        quota = self.quotas[stage]
        if stage in _CHOOSING:
            return min(quota, max(self.done(stage), self._configs(stage)))
        if stage in _WAITING and self._ready(stage):
            return min(quota, max(self.done(stage), len(self._cells(stage))))
        return quota

    @property
    def exhausted(self) -> dict[Stage, int]:
        """Stages that end early because the space has no more configs, and the trials of each."""
        ends: dict[Stage, int] = {s: self.quota(s) for s in self.quotas if s in _CHOOSING}
        return {stage: end for stage, end in ends.items() if end < self.quotas[stage]}

    def _configs(self, stage: Stage) -> int:
        """Different configs that explore or search can run: those that the other does not."""
        if self._ledger.configs is None:
            return self.quotas[stage]
        explored, searched = self._ledger.points("explore"), self._ledger.points("search")
        left = len(self._ledger.configs) - len(explored | searched)
        if stage == "explore":
            return len(explored) + left
        planned = self.quota("explore") - len(explored) if "explore" in self.quotas else 0
        return len(searched) + left - max(0, planned)

    def done(self, *stages: Stage) -> int:
        """Trials of the stages (of all by default) that have their final result."""
        return sum(
            min(self.quotas[stage], sum(entry.finished for entry in self._entries(stage)))
            for stage in stages or self.quotas
        )

    @property
    def finished(self) -> bool:
        """Whether nothing is left to run."""
        return self.done() >= self.total

    @property
    def lost_cells(self) -> int:
        """Cells of a tuned grid for which nothing was found, as all that was tried there failed."""
        tuned = "tune" in self.quotas and self._ready("grid")
        return len(self._grid) - len(self._best_of_cells()) if tuned else 0

    def next(self) -> Ticket | Literal["wait", "finished"]:
        """Begin the next trial, if it does not have to wait for one that runs."""
        for stage in self.quotas:
            if stage in _WAITING and not self._ready(stage):
                break
            entries = self._entries(stage)
            begun = sum(entry.finished or entry.place in self._given for entry in entries)
            ticket = self._begin(stage, entries) if begun < self.quota(stage) else None
            if ticket:
                self._given.add(ticket.place)
                return ticket
        running = any(entry.status == "running" for entry in self._ledger.entries())
        return "wait" if running else "finished"

    def _begin(self, stage: Stage, entries: list[Entry]) -> Ticket | None:
        for entry in entries:
            if not entry.finished and entry.place not in self._given:
                return self._ledger.begin(stage, entry.index, entry.params, entry.run.seed)
        if stage == "search":
            return self._ledger.propose()
        if stage == "explore":
            return self._begin_point(entries)
        begun = [(entry.params, entry.run.seed) for entry in self._ledger.entries(stage)]
        for params, seed in self._cells(stage):
            if (params, seed) not in begun:
                return self._ledger.begin(stage, len(begun), params, seed)
        return None

    def _begin_point(self, entries: list[Entry]) -> Ticket:
        """Begin the next point of the design that is a new config."""
        ledger = self._ledger
        index = len(entries)
        known = ledger.points(*_CHOOSING)
        params = design.new_point(ledger.study, ledger.seed, index, known, ledger.configs)
        return ledger.begin("explore", index, params, ledger.seed)

    def _entries(self, stage: Stage) -> list[Entry]:
        """Of this sweep: others may have had another grid, or fewer trials and another best."""
        entries = self._ledger.entries(stage)
        if entries and stage not in _CHOOSING:
            cells = self._cells(stage)
            entries = [e for e in entries if (e.params, e.run.seed) in cells]
        return entries

    def _ready(self, stage: Stage) -> bool:
        """Whether all stages before have their results, on which the trials of this one depend."""
        before = itertools.takewhile(lambda other: other != stage, self.quotas)
        return all(self.done(other) >= self.quota(other) for other in before)

    def _cells(self, stage: Stage) -> list[Cell]:
        """The trials of stages tune, grid and confirm, as far as they are known.

        Configs that were chosen by the seed of the sweep are trained with fresh ones.
        """
        study, seed = self._ledger.study, self._ledger.seed
        if stage == "tune":
            return [(params, seed) for cell in self._grid for params in cell]
        if stage == "grid":
            first = seed + 1 if study.tuned else seed
            seeds = range(first, first + study.seeds)
            return [(params, own) for own in seeds for params in self._best_of_cells()]
        seeds = range(seed + 1, seed + 1 + study.seeds)
        return [(params, own) for params in self._best() for own in seeds]

    def _best(self) -> list[dict[str, Any]]:
        """The best configs of explore and search; one that was tried twice is one."""
        best: list[dict[str, Any]] = []
        for entry in self._ledger.ranking():
            if len(best) < _CONFIRMED and entry.params not in best:
                best.append(entry.params)
        return best

    def _best_of_cells(self) -> list[dict[str, Any]]:
        """The best params in each cell of the grid; none of a cell where all attempts failed."""
        if not self._ledger.study.tuned:
            return [params for (params,) in self._grid]
        complete = [e for e in self._ledger.finished("tune") if e.status == "complete"]
        attempts = ([e for e in complete if e.params in cell] for cell in self._grid)
        return [min(own, key=self._cost).params for own in attempts if own]

    def _cost(self, entry: Entry) -> float:
        assert entry.result is not None
        metric = self._ledger.objective.metric
        return metric.order(entry.result["metrics"][metric.key])
