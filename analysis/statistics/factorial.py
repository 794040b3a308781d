"""Factorial analysis of stage grid, which runs all combinations of values with several seeds.

A cell is a config without its seed. All intervals are half-widths of 95 % t-intervals over training
seeds.
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
"""Nuisance parameters when K and N are studied: their best values depend on K and N."""

Levels = Mapping[str, Any]
"""A value for each dimension of the grid that applies."""


@dataclass(frozen=True)
class Effect:
    """The response at one level of a dimension, averaged over all other dimensions."""

    dimension: str
    """The learner field."""
    level: Any
    """Its value."""
    mean: float | None
    """Mean over cells and seeds, in the response's unit; None if no seed has every cell."""
    interval: float | None
    """Half-width of the 95 % interval over seeds; None with fewer than two seeds."""
    seeds: int
    """Number of seeds used."""
    left_out: int
    """Number of seeds excluded because they lack a cell."""
    by_seed: tuple[float, ...] = ()
    """Mean over cells for each seed."""


@dataclass(frozen=True)
class Cell:
    """The response at one row and one column."""

    mean: float | None
    """Mean over seeds, in the response's unit; None if no trial has the response."""
    interval: float | None
    """Half-width of the 95 % interval over seeds; None with fewer than two seeds."""
    seeds: int
    """Number of seeds used."""
    chosen: Levels
    """The selected values of the nuisance parameters."""
    statuses: Mapping[Status, int]
    """Statuses of the cell's trials with counts, over all nuisance settings."""


@dataclass(frozen=True)
class CellsTable:
    """Cells by row and column, for one combination of the other dimensions."""

    at: Levels
    """That combination, such as the algorithm; empty if no other dimension varies."""
    rows: tuple[Any, ...]
    """Values of the row dimension; only None if it does not vary or does not apply."""
    columns: tuple[Any, ...]
    """Values of the column dimension; only None if it does not vary or does not apply."""
    cells: tuple[tuple[Cell, ...], ...]
    """One tuple per row with one cell per column."""


def settings(trial: Trial) -> dict[str, Any]:
    """The learner fields that have an effect in this trial, with their values."""
    learner = trial.config.learner.model_dump()
    return {name: value for name, value in learner.items() if applies(name, learner)}


def varying(trials: Iterable[Trial]) -> dict[str, tuple[Any, ...]]:
    """The learner fields that differ among the trials to which they apply, with their values.

    Numbers are sorted and come after all other values, which keep their order of appearance.
    """
    levels: dict[str, dict[Any, None]] = {}
    for trial in trials:
        for name, value in settings(trial).items():
            levels.setdefault(name, {})[value] = None
    return {name: _sorted(values) for name, values in levels.items() if len(values) > 1}


def main_effects(
    trials: Sequence[Trial], response: Response, tuned: Collection[str] = ()
) -> tuple[Effect, ...]:
    """The effect of each dimension, averaged over the others.

    The response is first averaged over all cells at a level, separately for every seed. Mean and
    interval are taken over these averages, so that an effect of a seed on all cells counts once.
    Seeds that lack the response in some cell are excluded, since levels would otherwise be
    averaged over different cells. Means are arithmetic, also for peak memory and time.

    Args:
        trials: all trials of stage grid with any status, and those of stage tune. A cell that has
            only trials of stage tune is missing for every seed.
        response: the response to average.
        tuned: fields that stage tune optimised in every cell. They belong to the cell and are not
            dimensions.
    """
    dimensions = {name: levels for name, levels in varying(trials).items() if name not in tuned}
    by_seed = _responses_by_seed(trials, response, dimensions)
    cells = {_cell(trial, dimensions) for trial in trials}
    full = [responses for responses in by_seed.values() if len(responses) == len(cells)]
    left_out = len(by_seed) - len(full)
    effects = []
    for name, levels in dimensions.items():
        for level in levels:
            at_level = [cell for cell in cells if (name, level) in cell]
            means = [statistics.fmean(responses[cell] for cell in at_level) for responses in full]
            effects.append(Effect(name, level, *_mean(means), len(full), left_out, tuple(means)))
    return tuple(effects)


def difference(one: Effect, other: Effect) -> tuple[float | None, float | None]:
    """Paired difference between two levels of a dimension: the first minus the second.

    Returns:
        Mean over seeds and half-width of its 95 % interval; None as in `Effect`.
    """
    return _mean([a - b for a, b in zip(one.by_seed, other.by_seed, strict=True)])


def cells_table(
    trials: Sequence[Trial],
    response: Response,
    rows: str = "inner_steps",
    columns: str = "cg_steps",
    nuisances: Sequence[str] = STEP_SIZES,
) -> tuple[CellsTable, ...]:
    """Tables of the response by two dimensions, with nuisance parameters tuned in each cell.

    In each cell, the nuisance setting with the best mean metric on the validation tasks is
    selected, among the settings that the most seeds completed: a setting that diverges with some
    seeds must not win by luck with the others. The selection is the same for every response, so
    tables of accuracy, memory and time show the same trials. The metric of the selected setting
    is slightly too good, since it is averaged over the seeds that selected it.

    Args:
        trials: all trials of stage grid with any status, and those of stage tune, which supply
            the statuses of a cell that has no trial of stage grid.
        response: the response in the cells.
        rows: learner field for the rows.
        columns: learner field for the columns.
        nuisances: learner fields to tune; those that do not vary are ignored.

    Returns:
        One table for each combination of the other dimensions, in order of appearance.
    """
    dimensions = varying(trials)
    inside = (rows, columns, *nuisances)
    tables: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        others = _cell(trial, [name for name in dimensions if name not in inside])
        tables.setdefault(others, []).append(trial)
    tuned = [name for name in nuisances if name in dimensions]
    axes = [name if name in dimensions else None for name in (rows, columns)]
    return tuple(_table(dict(at), group, response, axes, tuned) for at, group in tables.items())


def _table(
    at: Levels,
    trials: Sequence[Trial],
    response: Response,
    axes: Sequence[str | None],
    tuned: Sequence[str],
) -> CellsTable:
    groups: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        fields = settings(trial)
        position = tuple(None if name is None else fields.get(name) for name in axes)
        groups.setdefault(position, []).append(trial)
    rows, columns = (_sorted(dict.fromkeys(values)) for values in zip(*groups, strict=True))
    cells = [
        [_tuned_cell(groups.get((row, column), ()), response, tuned) for column in columns]
        for row in rows
    ]
    return CellsTable(at, rows, columns, tuple(map(tuple, cells)))


def _tuned_cell(trials: Sequence[Trial], response: Response, tuned: Sequence[str]) -> Cell:
    grid_trials = [trial for trial in trials if trial.stage == "grid"]
    choices: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in grid_trials:
        choices.setdefault(_cell(trial, tuned), []).append(trial)
    statuses = Counter(trial.status for trial in grid_trials or trials)
    if not grid_trials and statuses["complete"]:
        statuses = Counter()  # the cell is tuned, but its grid trials have not started
    best = max(choices, key=lambda choice: _merit(choices[choice]), default=())
    responses = [response.value_of(trial) for trial in choices.get(best, ())]
    values = [value for value in responses if value is not None]
    mean, interval = _mean(values)
    return Cell(mean, interval, len(values), dict(best) if values else {}, statuses)


def _merit(trials: Sequence[Trial]) -> tuple[int, float]:
    """Number of complete trials and their mean metric; higher is better for both."""
    metric = trials[0].config.data.metric
    values = [value for trial in trials if (value := quality(metric).value_of(trial)) is not None]
    return len(values), -metric.order(statistics.fmean(values)) if values else 0.0


def _responses_by_seed(
    trials: Iterable[Trial], response: Response, dimensions: Collection[str]
) -> dict[int, dict[tuple[Any, ...], float]]:
    """The responses of stage grid by seed and cell; a cell without the response is absent."""
    by_seed: dict[int, dict[tuple[Any, ...], float]] = {}
    for trial in (trial for trial in trials if trial.stage == "grid"):
        responses = by_seed.setdefault(trial.config.seed, {})
        value = response.value_of(trial)
        if value is not None:
            responses[_cell(trial, dimensions)] = value
    return by_seed


def _cell(trial: Trial, dimensions: Iterable[str]) -> tuple[tuple[str, Any], ...]:
    """The trial's cell: the dimensions that apply, with their values."""
    fields = settings(trial)
    return tuple((name, fields[name]) for name in dimensions if name in fields)


def _mean(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and half-width of its 95 % interval over seeds."""
    return over_seeds(values) if values else (None, None)


def _sorted(values: Iterable[Any]) -> tuple[Any, ...]:
    """Sort numbers, after all other values in their order."""

    def sort_key(value: Any) -> float:
        return value if isinstance(value, int | float) else -math.inf

    return tuple(sorted(values, key=sort_key))
