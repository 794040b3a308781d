"""Hyperparameters encoded in the unit cube, for regression and sensitivity analysis."""

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
"""The search space: a distribution for each learner field."""

_LOOP_DISTANCES = (("inner_lr", "inner_steps", False), ("outer_lr", "task_batch", True))
"""Pairs of dimensions that determine how far a loop moves, and whether by their quotient. The inner
loop moves by step size times steps. The outer loop moves by step size over task batch: for a fixed
number of tasks, a larger batch means fewer steps."""

_ABSENT = 0.5
"""The feature of a number that does not apply: the middle of the range, as close as possible to
all values."""


def params(trial: Trial, space: Space) -> dict[str, Any]:
    """The trial's values in the dimensions that apply to its config."""
    learner = trial.config.learner
    return applicable({name: getattr(learner, name) for name in space}, learner)


def space_size(space: Space) -> float:
    """Upper bound on the number of configs in the space; infinite with a continuous dimension."""
    return math.prod(map(_value_count, space.values()))


def _value_count(distribution: BaseDistribution) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.step is None:
        return 1 if distribution.single() else math.inf
    return round((distribution.high - distribution.low) / distribution.step) + 1


def encode(rows: Sequence[Mapping[str, Any]], space: Space) -> np.ndarray:
    """Encode params as features, the inverse of `sweeps.engine.study.space.at`.

    A numeric dimension becomes one column, see `unit_coordinate`. A categorical dimension becomes
    one column per choice, one-hot encoded. For a dimension that does not apply to a config, the
    numeric feature is 0.5 and all one-hot features are 0; the config's other fields identify it.

    Args:
        rows: params of n configs, all within their ranges.
        space: the search space.

    Returns:
        Features within [0, 1]: [n, features].
    """
    columns = [_columns(rows, name, distribution) for name, distribution in space.items()]
    return np.hstack([np.empty((len(rows), 0)), *columns])


def cube_features(points: np.ndarray, space: Space, base: LearnerConfig) -> np.ndarray:
    """Features of the configs at given points of the unit cube.

    Args:
        points: [n, dimensions], columns in the order of the space.
        space: the search space.
        base: supplies the fields that are not in the space.

    Returns:
        Features as from `encode`: [n, features].
    """
    return encode([at(point, space, base) for point in points.tolist()], space)


def loop_distances(space: Space) -> tuple[tuple[str, str, bool], ...]:
    """The loop distances of which the space has both dimensions, each on a logarithmic scale.

    Returns:
        Two dimensions, and whether the distance is their quotient rather than their product.
    """
    return tuple(
        distance
        for distance in _LOOP_DISTANCES
        if all(name in space and _log_width(space[name]) for name in distance[:2])
    )


def with_loop_distances(features: np.ndarray, space: Space) -> np.ndarray:
    """Append one column per loop distance, scaled to [0, 1].

    A product or quotient is a sum or difference on logarithmic scales. The column carries no new
    information, but it lets a surrogate with one length scale per feature learn an effect of the
    distance from far fewer trials.

    Args:
        features: [n, features], from `encode`.
        space: the search space.

    Returns:
        [n, features + distances].
    """
    columns, column = {}, 0
    for name, distribution in space.items():
        columns[name] = column
        if isinstance(distribution, CategoricalDistribution):
            column += len(distribution.choices)
        else:
            column += 1
    blocks = [features]
    for one, other, is_quotient in loop_distances(space):
        widths = _log_width(space[one]), _log_width(space[other])
        first, second = features[:, columns[one]], features[:, columns[other]]
        distance = widths[0] * first + widths[1] * (1 - second if is_quotient else second)
        blocks.append((distance / sum(widths))[:, None])
    return np.hstack(blocks)


def unit_coordinate(value: Any, distribution: BaseDistribution) -> float:
    """The coordinate within [0, 1] that a space-filling design maps to `value`.

    A stepped value covers an interval of coordinates; the result is its middle, or on a
    logarithmic scale the position of the value itself.
    """
    if isinstance(distribution, CategoricalDistribution):
        return (distribution.to_internal_repr(value) + 0.5) / len(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        return _relative(math.log(value), *map(math.log, _log_bounds(distribution)))
    half = 0.0 if step is None else step / 2
    return _relative(value, low - half, high + half)


def _log_width(distribution: BaseDistribution) -> float:
    """Width of the range in logarithms; 0 if the scale is not logarithmic."""
    if not isinstance(distribution, FloatDistribution | IntDistribution) or not distribution.log:
        return 0.0
    first, last = _log_bounds(distribution)
    return math.log(last / first)


def _log_bounds(distribution: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """Bounds of a logarithmic range; an integer covers half a step on either side."""
    half = 0.5 if isinstance(distribution, IntDistribution) else 0.0
    return distribution.low - half, distribution.high + half


def _relative(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else _ABSENT


def _columns(
    rows: Sequence[Mapping[str, Any]], name: str, distribution: BaseDistribution
) -> np.ndarray:
    if not isinstance(distribution, CategoricalDistribution):
        coordinates = [
            unit_coordinate(row[name], distribution) if name in row else _ABSENT for row in rows
        ]
        return np.array(coordinates, dtype=float)[:, None]
    columns = np.zeros((len(rows), len(distribution.choices)))
    for number, row in enumerate(rows):
        if name in row:
            columns[number, int(distribution.to_internal_repr(row[name]))] = 1
    return columns
