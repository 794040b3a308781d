"""Params of trials as points of the unit cube, for regression and sensitivity analysis."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from analysis.records.trials import Trial
from memmeta.config import LearnerConfig
from sweeps.engine.study.space import applicable, at

Space = Mapping[str, BaseDistribution]
"""Fields of the learner and where each is searched."""

_DISTANCES = (("inner_lr", "inner_steps", False), ("outer_lr", "task_batch", True))
"""Pairs of dimensions whose product, or quotient, says how far a loop moves: the inner one by its
step size and its steps, the outer one by its step size and its steps, of which an equal number of
tasks leaves fewer the larger their batch."""

_ABSENT = 0.5
"""The feature of a number that does not apply: the middle, as near to all others as it can be."""


def params(trial: Trial, space: Space) -> dict[str, Any]:
    """Values of the dimensions that apply to the trial's config."""
    learner = trial.config.learner
    return applicable({name: getattr(learner, name) for name in space}, learner)


def size(space: Space) -> float:
    """How many configs the space has at most: infinitely many with a dimension without steps."""
    return math.prod(map(_values, space.values()))


def _values(distribution: BaseDistribution) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.step is None:
        return 1 if distribution.single() else math.inf
    return round((distribution.high - distribution.low) / distribution.step) + 1


def encode(rows: Sequence[Mapping[str, Any]], space: Space) -> np.ndarray:
    """Params as features: the inverse of `sweeps.engine.study.space.at`.

    A numeric dimension is one column, see `share`; a categorical one is a column for each choice,
    1 for that which was made and 0 elsewhere. Of a dimension that a config leaves out, the number
    is 0.5 and all choices are 0: the config's other fields say what it is.

    Args:
        rows: params of n configs, each value within its range.
        space: fields of the learner and where each is searched.

    Returns:
        [n, features], each within [0, 1].
    """
    columns = [_columns(rows, name, distribution) for name, distribution in space.items()]
    return np.hstack([np.empty((len(rows), 0)), *columns])


def cube_features(points: np.ndarray, space: Space, base: LearnerConfig) -> np.ndarray:
    """Features of the configs that a design has at these points.

    Args:
        points: [n, dimensions] of the unit cube, columns in the order of the space.
        space: fields of the learner and where each is searched.
        base: holds what the space leaves out.

    Returns:
        [n, features], see `encode`.
    """
    return encode([at(point, space, base) for point in points.tolist()], space)


def distances(space: Space) -> tuple[tuple[str, str, bool], ...]:
    """Those of `_DISTANCES` of which both dimensions are there, each on a logarithmic scale."""
    return tuple(
        distance
        for distance in _DISTANCES
        if all(name in space and _width(space[name]) for name in distance[:2])
    )


def with_distances(features: np.ndarray, space: Space) -> np.ndarray:
    """Features, and a column within [0, 1] for each of `distances`.

    A distance is a product or a quotient, and so on logarithmic scales a sum or a difference. It
    adds nothing that the features do not say, but a surrogate with a length for each feature sees
    what depends on it from far fewer trials.

    Args:
        features: [n, features], of `encode`.
        space: fields of the learner and where each is searched.

    Returns:
        [n, features and distances].
    """
    columns, place = {}, 0
    for name, distribution in space.items():
        columns[name] = place
        if isinstance(distribution, CategoricalDistribution):
            place += len(distribution.choices)
        else:
            place += 1
    found = [features]
    for one, other, quotient in distances(space):
        widths = _width(space[one]), _width(space[other])
        near, far = features[:, columns[one]], features[:, columns[other]]
        moved = widths[0] * near + widths[1] * (1 - far if quotient else far)
        found.append((moved / sum(widths))[:, None])
    return np.hstack(found)


def share(value: Any, distribution: BaseDistribution) -> float:
    """The coordinate within [0, 1] at which a design has this value.

    Of what takes up a part of the range, as an integer does, it is the middle of that part; on a
    logarithmic scale, the value's own place.
    """
    if isinstance(distribution, CategoricalDistribution):
        return (distribution.to_internal_repr(value) + 0.5) / len(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        return _place(math.log(value), *map(math.log, _ends(distribution)))
    half = 0.0 if step is None else step / 2
    return _place(value, low - half, high + half)


def _width(distribution: BaseDistribution) -> float:
    """The logarithm of the last value over the first; 0 of what has no logarithmic scale."""
    if not isinstance(distribution, FloatDistribution | IntDistribution) or not distribution.log:
        return 0.0
    first, last = _ends(distribution)
    return math.log(last / first)


def _ends(distribution: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """Of a range on a logarithmic scale: an integer takes up half a step to either side of it."""
    half = 0.5 if isinstance(distribution, IntDistribution) else 0.0
    return distribution.low - half, distribution.high + half


def _place(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else _ABSENT


def _columns(
    rows: Sequence[Mapping[str, Any]], name: str, distribution: BaseDistribution
) -> np.ndarray:
    if not isinstance(distribution, CategoricalDistribution):
        shares = [share(row[name], distribution) if name in row else _ABSENT for row in rows]
        return np.array(shares, dtype=float)[:, None]
    columns = np.zeros((len(rows), len(distribution.choices)))
    for number, row in enumerate(rows):
        if name in row:
            columns[number, int(distribution.to_internal_repr(row[name]))] = 1
    return columns
