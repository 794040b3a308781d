"""Which trial comes next: the stages of a sweep within its budget."""

from collections.abc import Iterator
from typing import Any, Literal

from sweeps.engine import design
from sweeps.engine.ledger import Entry, Ledger, Ticket
from sweeps.engine.outcome import Stage
from sweeps.engine.study import Study

_CONFIRMED = 5
"""Configs that are confirmed at most."""

Choice = Literal["explore", "search", "confirm", "grid", "all"]
"""A stage, or explore, search and confirm within one budget."""

Cell = tuple[dict[str, Any], int]
"""A point of the space and a training seed."""

Quotas = dict[Stage, int]
"""Trials of each stage that is to be run, in the order in which they are."""


def quotas(study: Study, choice: Choice, trials: int) -> Quotas:
    """How the budget is divided.

    Of the budget of `all` a quarter goes to search, and up to a quarter to confirm: the best five
    configs at most.
    """
    if choice == "grid":
        return {"grid": len(design.grid_cells(study, seed=0))}
    if choice != "all":
        return {choice: trials}
    search = trials // 4
    confirm = min(search, _CONFIRMED * study.seeds)
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
        self._grid = design.grid_cells(ledger.study, ledger.seed) if "grid" in quotas else []

    @property
    def total(self) -> int:
        """Trials of all stages."""
        return sum(map(self.quota, self.quotas))

    def quota(self, stage: Stage) -> int:
        """Trials of a stage; there can be fewer configs to confirm than were asked for."""
        quota = self.quotas[stage]
        if stage == "confirm" and self._ready_to_confirm():
            return min(quota, max(self.done(stage), len(self._confirmations())))
        return quota

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

    def next(self) -> Ticket | Literal["wait", "finished"]:
        """Begin the next trial, if it does not have to wait for one that runs."""
        for stage in self.quotas:
            if stage == "confirm" and not self._ready_to_confirm():
                break
            entries = self._entries(stage)
            begun = sum(entry.finished or entry.place in self._given for entry in entries)
            ticket = self._begin(stage, entries) if begun < self.quotas[stage] else None
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
        begun = [(entry.params, entry.run.seed) for entry in self._ledger.entries(stage)]
        for params, seed in self._cells(stage):
            if (params, seed) not in begun:
                return self._ledger.begin(stage, len(begun), params, seed)
        return None

    def _cells(self, stage: Stage) -> Iterator[Cell]:
        """The trials of a stage in which they are known beforehand."""
        if stage == "explore":
            study, seed = self._ledger.study, self._ledger.seed
            for index in range(self.quotas[stage]):
                yield design.sobol_point(study, seed, index), seed
        else:
            yield from self._grid if stage == "grid" else self._confirmations()

    def _entries(self, stage: Stage) -> list[Entry]:
        """Of this sweep: other commands may have had another grid."""
        entries = self._ledger.entries(stage)
        if stage == "grid":
            entries = [e for e in entries if (e.params, e.run.seed) in self._grid]
        return entries

    def _ready_to_confirm(self) -> bool:
        """Whether the best configs are known: when all others have their results."""
        return all(
            self.done(stage) >= quota for stage, quota in self.quotas.items() if stage != "confirm"
        )

    def _confirmations(self) -> list[Cell]:
        """The best configs, each with the fresh seeds."""
        first = self._ledger.seed + 1
        seeds = range(first, first + self._ledger.study.seeds)
        best = self._ledger.ranking()[:_CONFIRMED]
        return [(entry.params, seed) for entry in best for seed in seeds]
