"""Averages of a fitted response over all dimensions but one (curves) or two (maps)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from analysis.statistics.response_model import ResponseModel
from analysis.statistics.sobol import Interaction

ALWAYS_MAPPED = ("inner_lr", "inner_steps")
"""Dimensions that always get a map, since their product is how far the inner loop moves."""

_CURVE_VALUES, _MAP_VALUES = 33, 25
_CURVE_POINTS, _MAP_POINTS = 64, 32
_STRONGEST, _WORTH_A_MAP = 2, 0.01
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Curve:
    """A main effect: the response against a dimension, averaged over all others.

    A config to which the dimension does not apply contributes the same value everywhere.
    """

    name: str
    """The dimension."""
    x: tuple[Any, ...]
    """Its values in its own unit: choices, or increasing numbers."""
    mean: tuple[float, ...]
    """The average in the response's unit; the geometric mean if `Response.log`."""
    low: tuple[float, ...]
    """Lower end of the surrogate's pointwise 95 % band."""
    high: tuple[float, ...]
    """Upper end of the band."""


@dataclass(frozen=True)
class Map:
    """The response against two dimensions, averaged over all others."""

    names: tuple[str, str]
    """The dimensions."""
    x: tuple[Any, ...]
    """Values of the first."""
    y: tuple[Any, ...]
    """Values of the second."""
    mean: tuple[tuple[float, ...], ...]
    """The average as in `Curve`: one row per value of `y` with one number per value of `x`."""


def curves(model: ResponseModel) -> tuple[Curve, ...]:
    """The main effect of every dimension, in the order of the space."""
    return tuple(_curve(model, name) for name in model.points.space)


def maps(model: ResponseModel, interactions: Sequence[Interaction]) -> tuple[Map, ...]:
    """Maps of the two strongest interactions of at least 1 %, and of `ALWAYS_MAPPED`.

    Args:
        model: the response.
        interactions: all pairs of dimensions, the strongest first.
    """
    pairs = [interaction.names for interaction in interactions]
    always = [pair for pair in pairs if set(pair) == set(ALWAYS_MAPPED)]
    strongest = [i.names for i in interactions[:_STRONGEST] if i.value >= _WORTH_A_MAP]
    return tuple(_map(model, pair) for pair in dict.fromkeys(strongest + always))


def _curve(model: ResponseModel, name: str) -> Curve:
    """Main effect with its band: an average is linear, so draws scatter around the mean's."""
    values = _grid(model.points.space[name], _CURVE_VALUES)
    features = model.points.over_others((name,), tuple((v,) for v in values), _CURVE_POINTS)
    mean = model.surrogate.mean(features).reshape(len(values), _CURVE_POINTS).mean(axis=1)
    draws = model.draws(features).reshape(len(values), _CURVE_POINTS, -1).mean(axis=1)
    half_width = _NORMAL_95 * np.sqrt(np.mean((draws - mean[:, None]) ** 2, axis=1))
    ends = mean, mean - half_width, mean + half_width
    return Curve(name, values, *map(model.in_unit, ends))


def _map(model: ResponseModel, names: tuple[str, str]) -> Map:
    x, y = (_grid(model.points.space[name], _MAP_VALUES) for name in names)
    combinations = tuple((first, second) for second in y for first in x)
    features = model.points.over_others(names, combinations, _MAP_POINTS)
    means = model.surrogate.mean(features).reshape(len(y), len(x), _MAP_POINTS).mean(axis=2)
    return Map(names, x, y, tuple(map(model.in_unit, means)))


def _grid(distribution: BaseDistribution, size: int) -> tuple[Any, ...]:
    """All choices, or up to about `size` values evenly spaced on the dimension's scale."""
    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    spaced = np.geomspace if distribution.log else np.linspace
    values = spaced(low, high, size).clip(low, high)
    if step is None:
        return tuple(dict.fromkeys(values.tolist()))
    nearest = dict.fromkeys(np.rint((values - low) / step).astype(int).tolist())
    return tuple(min(low + count * step, high) for count in nearest)
