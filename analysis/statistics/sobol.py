"""Sobol indices of a fitted response."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from SALib.analyze.sobol import first_order, second_order, total_order

from analysis.statistics.response_model import ResponseModel

_POINTS, _POINTS_OF_DRAWS = 1024, 512


@dataclass(frozen=True)
class Estimate:
    """A share of the response's variance, within [0, 1], with its 95 % interval."""

    value: float
    """Value for the surrogate's mean."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


@dataclass(frozen=True)
class Index:
    """The Sobol indices of a dimension."""

    name: str
    """The dimension."""
    first: Estimate
    """First order: the share that the dimension explains alone."""
    total: Estimate
    """Total order: the share that the dimension explains alone and in interactions."""


@dataclass(frozen=True)
class Interaction:
    """The second-order Sobol index of two dimensions."""

    names: tuple[str, str]
    """The dimensions, in the order of the space."""
    value: float
    """The share that they explain together beyond their first-order indices, within [0, 1]."""


def sobol_indices(model: ResponseModel) -> tuple[tuple[Index, ...], tuple[Interaction, ...]]:
    """Sobol indices of the surrogate's mean, with intervals for first and total order.

    As in Le Gratiet, Cannamela & Iooss 2014 ("A Bayesian approach for global sensitivity analysis
    of (multi-fidelity) computer codes"), intervals cover both uncertainties: indices are computed
    for draws from the surrogate's posterior, each with the sample's rows resampled.

    Returns:
        Dimensions by decreasing total order, and pairs by decreasing interaction.
    """
    names = list(model.points.space)
    features = model.points.saltelli(_POINTS, second_order=True)
    mean, draws = model.surrogate.mean(features).reshape(_POINTS, -1, 1), _resampled_draws(model)
    firsts, totals = (
        list(map(_estimate, orders(mean, len(names))[:, 0], orders(draws, len(names))))
        for orders in (_first_orders, _total_orders)
    )
    indices = map(Index, names, firsts, totals)
    by_total = sorted(indices, key=lambda index: index.total.value, reverse=True)
    return tuple(by_total), _interactions(names, mean)


def _resampled_draws(model: ResponseModel) -> np.ndarray:
    """Outputs of posterior draws, rows resampled for each: [points, dimensions + 2, draws]."""
    features = model.points.saltelli(_POINTS_OF_DRAWS, second_order=False)
    draws = model.draws(features)
    outputs = draws.reshape(_POINTS_OF_DRAWS, -1, draws.shape[1])
    generator = np.random.default_rng(model.points.seed)
    rows = generator.integers(_POINTS_OF_DRAWS, size=(_POINTS_OF_DRAWS, 1, draws.shape[1]))
    return np.take_along_axis(outputs, rows, axis=0)


def _estimate(value: float, draws: np.ndarray) -> Estimate:
    """95 % interval that covers the percentiles of the draws and these mirrored at `value`.

    An index is quadratic in the response, so uncertainty inflates it: draws lie above the index of
    the mean, as the index of the mean may lie above the true one. Percentiles alone would exclude
    an index of 0, which every draw exceeds. Percentiles mirrored at the index of the mean, as in
    the basic bootstrap (Davison & Hinkley 1997, section 5.2), include it.
    """
    low, high = np.percentile(draws, [2.5, 97.5])
    ends = np.array([value, low, high, 2 * value - low, 2 * value - high]).clip(0, 1)
    return Estimate(float(ends[0]), float(ends.min()), float(ends.max()))


def _first_orders(outputs: np.ndarray, dimensions: int) -> np.ndarray:
    """First-order indices [dimensions, m] of Saltelli's sample [points, columns, m]."""
    outputs = outputs - outputs.mean(axis=(0, 1))
    a, b = outputs[:, 0], outputs[:, -1]
    return np.array([first_order(a, outputs[:, 1 + index], b) for index in range(dimensions)])


def _total_orders(outputs: np.ndarray, dimensions: int) -> np.ndarray:
    """Total-order indices [dimensions, m] of Saltelli's sample [points, columns, m]."""
    a, b = outputs[:, 0], outputs[:, -1]
    return np.array([total_order(a, outputs[:, 1 + index], b) for index in range(dimensions)])


def _interactions(names: Sequence[str], outputs: np.ndarray) -> tuple[Interaction, ...]:
    """Second-order indices of Saltelli's sample [points, 2 dimensions + 2, 1]."""
    outputs = outputs[..., 0] - outputs.mean()
    a, b = outputs[:, 0], outputs[:, -1]
    interactions = []
    for one, other in itertools.combinations(range(len(names)), 2):
        mixed = outputs[:, 1 + one], outputs[:, 1 + other], outputs[:, 1 + len(names) + one]
        value = float(np.clip(second_order(a, *mixed, b), 0, 1))
        interactions.append(Interaction((names[one], names[other]), value))
    return tuple(sorted(interactions, key=lambda interaction: -interaction.value))
