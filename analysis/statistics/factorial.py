"""Stage grid, where every combination of some values was run with several training seeds.

A cell is a config without its seed. All intervals are over training seeds: Student's t, 95 %.
"""

import math
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.records.trials import Trial
from analysis.statistics.responses import Response, quality
from sweeps.engine.study.outcome import Status
from sweeps.engine.study.seeds import over_seeds
from sweeps.engine.study.space import applies

STEP_SIZES = ("inner_lr", "outer_lr")
"""What is a nuisance where K and N are studied: its best value depends on them."""

Levels = Mapping[str, Any]
"""Dimensions of the grid and a value of each; one that does not apply is not in it."""


@dataclass(frozen=True)
class Effect:
    """A response at one level of one dimension, over all that else was varied."""

    dimension: str
    """A field of the learner."""
    level: Any
    """Its value."""
    mean: float | None
    """Of the response, in its unit, over cells and seeds; None where no seed has every cell."""
    interval: float | None
    """Half-width of the 95 % interval; None with fewer than two seeds."""
    seeds: int
    """How many seeds it is from."""
    left_out: int
    """How many were left out, since they lack a cell."""
    by_seed: tuple[float, ...] = ()
    """The mean over cells for each of the seeds."""


@dataclass(frozen=True)
class Cell:
    """A response at one row and one column."""

    mean: float | None
    """In the response's unit, over seeds; None where no trial has it."""
    interval: float | None
    """Half-width of the 95 % interval; None with fewer than two seeds."""
    seeds: int
    """How many seeds it is from."""
    chosen: Levels
    """The nuisance setting that was taken."""
    statuses: Mapping[Status, int]
    """How the cell's trials ended, those of all nuisance settings."""


@dataclass(frozen=True)
class CellsTable:
    """Rows by columns, at one combination of what else was varied."""

    at: Levels
    """That combination, such as the algorithm; empty where nothing else was varied."""
    rows: tuple[Any, ...]
    """Values of the row dimension; only None where it does not vary or does not apply."""
    columns: tuple[Any, ...]
    """Likewise of the column dimension."""
    cells: tuple[tuple[Cell, ...], ...]
    """A tuple for each row, with a cell for each column."""


def settings(trial: Trial) -> dict[str, Any]:
    """The fields of the learner that have an effect in this trial."""
    learner = trial.config.learner.model_dump()
    return {name: value for name, value in learner.items() if applies(name, learner)}


def varying(trials: Iterable[Trial]) -> dict[str, tuple[Any, ...]]:
    """The learner's fields that differ among trials they apply to, and their values.

    Numbers are sorted, after other values in the order in which they come.
    """
    found: dict[str, dict[Any, None]] = {}
    for trial in trials:
        for name, value in settings(trial).items():
            found.setdefault(name, {})[value] = None
    return {name: _sorted(values) for name, values in found.items() if len(values) > 1}


def main_effects(
    trials: Sequence[Trial], response: Response, tuned: Collection[str] = ()
) -> tuple[Effect, ...]:
    """What each dimension does on average over the others.

    For every seed the response is averaged over all cells at a level; mean and interval are over
    these averages, so that what seeds do to all cells alike counts once. Only seeds with the
    response in every cell of the grid count: otherwise levels would be averaged over different
    cells. For peak memory and time these are arithmetic means, too.

    Args:
        trials: those of stage grid, however they ended, and of stage tune: a cell that has but
            these is one that every seed lacks.
        response: what is averaged.
        tuned: fields that every cell has its own best value of, chosen before (stage tune). They
            are part of the cell, and no dimensions.
    """
    dimensions = {name: levels for name, levels in varying(trials).items() if name not in tuned}
    seeds = _responses_by_seed(trials, response, dimensions)
    cells = {_cell(trial, dimensions) for trial in trials}
    whole = [responses for responses in seeds.values() if len(responses) == len(cells)]
    effects = []
    for name, levels in dimensions.items():
        for level in levels:
            here = [cell for cell in cells if (name, level) in cell]
            means = [statistics.fmean(own[cell] for cell in here) for own in whole]
            left_out = len(seeds) - len(whole)
            effects.append(Effect(name, level, *_mean(means), len(whole), left_out, tuple(means)))
    return tuple(effects)


def difference(one: Effect, other: Effect) -> tuple[float | None, float | None]:
    """By how much the response is higher at one level than at another, seed by seed.

    Returns:
        The mean over seeds, and half the width of its 95 % interval; None as in `Effect`.
    """
    return _mean([a - b for a, b in zip(one.by_seed, other.by_seed, strict=True)])


def cells_table(
    trials: Sequence[Trial],
    response: Response,
    rows: str = "inner_steps",
    columns: str = "cg_steps",
    nuisances: Sequence[str] = STEP_SIZES,
) -> tuple[CellsTable, ...]:
    """Rows by columns, with the nuisances tuned anew in each cell.

    Of the nuisance settings in a cell, that with the best mean metric on the validation tasks is
    taken, among those that most seeds completed: one that diverges with some seeds is not
    preferred for its luck with the others. This is so for every response, so that the tables of
    accuracy, memory and time are of the same trials. The metric of the chosen setting is a little
    too good, for the seeds that chose it are those that are averaged.

    Args:
        trials: those of stage grid, however they ended, and of stage tune, which say of a cell
            without others how what was tried there ended.
        response: what is in the cells.
        rows: a field of the learner.
        columns: another.
        nuisances: fields that are tuned; those that do not vary need no tuning.

    Returns:
        A table for each combination of the other dimensions, in the order in which they come.
    """
    dimensions = varying(trials)
    inside = (rows, columns, *nuisances)
    tables: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        others = _cell(trial, [name for name in dimensions if name not in inside])
        tables.setdefault(others, []).append(trial)
    tuned = [name for name in nuisances if name in dimensions]
    axes = [name if name in dimensions else None for name in (rows, columns)]
    return tuple(_table(dict(at), own, response, axes, tuned) for at, own in tables.items())


def _table(
    at: Levels,
    trials: Sequence[Trial],
    response: Response,
    axes: Sequence[str | None],
    tuned: Sequence[str],
) -> CellsTable:
    places: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        own = settings(trial)
        place = tuple(None if name is None else own.get(name) for name in axes)
        places.setdefault(place, []).append(trial)
    rows, columns = (_sorted(dict.fromkeys(values)) for values in zip(*places, strict=True))
    cells = [
        [_tuned_cell(places.get((row, column), ()), response, tuned) for column in columns]
        for row in rows
    ]
    return CellsTable(at, rows, columns, tuple(map(tuple, cells)))


def _tuned_cell(trials: Sequence[Trial], response: Response, tuned: Sequence[str]) -> Cell:
    cells = [trial for trial in trials if trial.stage == "grid"]
    choices: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in cells:
        choices.setdefault(_cell(trial, tuned), []).append(trial)
    statuses = Counter(trial.status for trial in cells or trials)
    if not cells and statuses["complete"]:
        statuses = Counter()  # it is tuned, and its own trials are still to come
    best = max(choices, key=lambda choice: _merit(choices[choice]), default=())
    own = [response.of(trial) for trial in choices.get(best, ())]
    values = [value for value in own if value is not None]
    mean, interval = _mean(values)
    return Cell(mean, interval, len(values), dict(best) if values else {}, statuses)


def _merit(trials: Sequence[Trial]) -> tuple[int, float]:
    """How many trials are complete, and their mean metric turned so that higher is better."""
    metric = trials[0].config.data.metric
    values = [value for trial in trials if (value := quality(metric).of(trial)) is not None]
    return len(values), -metric.order(statistics.fmean(values)) if values else 0.0


def _responses_by_seed(
    trials: Iterable[Trial], response: Response, dimensions: Collection[str]
) -> dict[int, dict[tuple[Any, ...], float]]:
    """The response in every cell where there is one, for each seed of stage grid."""
    found: dict[int, dict[tuple[Any, ...], float]] = {}
    for trial in (trial for trial in trials if trial.stage == "grid"):
        own = found.setdefault(trial.config.seed, {})
        value = response.of(trial)
        if value is not None:
            own[_cell(trial, dimensions)] = value
    return found


def _cell(trial: Trial, dimensions: Iterable[str]) -> tuple[tuple[str, Any], ...]:
    """Those of the dimensions that apply, with their values."""
    own = settings(trial)
    return tuple((name, own[name]) for name in dimensions if name in own)


def _mean(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and half-width of its 95 % interval."""
    return over_seeds(values) if values else (None, None)


def _sorted(values: Iterable[Any]) -> tuple[Any, ...]:
    def place(value: Any) -> float:
        return value if isinstance(value, int | float) else -math.inf

    return tuple(sorted(values, key=place))
