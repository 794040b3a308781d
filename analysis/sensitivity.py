"""Which dimensions a response depends on, from the trials of a space-filling design.

A surrogate (`analysis.surrogate`) is fitted to the trials of stage explore, and its Sobol indices
and average effects are computed, but only where it predicts trials that it has not seen.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from SALib.analyze.sobol import first_order, second_order, total_order
from SALib.sample import sobol
from scipy.stats import qmc
from threadpoolctl import threadpool_limits

from analysis.encoding import Space, cube_features, encode, params, share, with_distances
from analysis.responses import Response
from analysis.surrogate import (
    Surrogate,
    cross_validated_r2,
    fit,
    likely_kernels,
    posterior_draws,
    size_for,
)
from analysis.trials import Trial
from memmeta.config import LearnerConfig

THRESHOLD = 0.7
"""The cross-validated R² from which a surrogate stands for the response, as is usual."""

MIN_TRIALS = 10
"""With fewer, not even R² is computed."""

ALWAYS_MAPPED = ("inner_lr", "inner_steps")
"""Dimensions whose product is how far the inner loop moves: they are looked at together."""

_POINTS, _POINTS_OF_DRAWS = 1024, 512
_AVERAGED, _AVERAGED_OF_MAPS = 64, 32
_CURVE, _MAP = 33, 25
_STRONGEST, _WORTH_A_MAP = 2, 0.01
_RESTARTS = 1
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Estimate:
    """A share of the response's variance, within [0, 1]."""

    value: float
    """Of the surrogate's mean."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""


@dataclass(frozen=True)
class Index:
    """The Sobol indices of a dimension."""

    name: str
    """The dimension."""
    first: Estimate
    """What it explains by itself."""
    total: Estimate
    """What it explains by itself and together with others."""


@dataclass(frozen=True)
class Interaction:
    """The second-order Sobol index of two dimensions."""

    names: tuple[str, str]
    """The dimensions, in the order of the space."""
    value: float
    """What they explain together beyond what each does by itself, within [0, 1]."""


@dataclass(frozen=True)
class Curve:
    """A main effect: the response against a dimension, averaged over all others.

    A configuration to which the dimension does not apply counts with the same number everywhere.
    """

    name: str
    """The dimension."""
    x: tuple[Any, ...]
    """Its values, in its own unit: choices, or numbers in rising order."""
    mean: tuple[float, ...]
    """The average in the response's unit; the geometric one where `Response.log`."""
    low: tuple[float, ...]
    """Lower end of the surrogate's 95 % band, at each value by itself."""
    high: tuple[float, ...]
    """Upper end."""


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
    """The average as in `Curve`: a row for each of `y`, in it a number for each of `x`."""


@dataclass(frozen=True)
class Sensitivity:
    """What the trials of stage explore say about a response."""

    response: Response
    """The response. Where it is `log`, its logarithm's variance is what is shared out."""
    names: tuple[str, ...]
    """Dimensions of the space."""
    trials: int
    """How many had a value."""
    left_out: int
    """How many of stage explore had none: diverged, out of memory, not finished."""
    r2: float | None
    """R² of the surrogate for trials it has not seen; None without enough trials, or variance."""
    supported: bool
    """Whether that reaches `THRESHOLD`. What follows is empty otherwise."""
    verdict: str
    """All that in a line, and where it is refused, about how many trials would do."""
    indices: tuple[Index, ...] = ()
    """One for each dimension, the greatest total first."""
    interactions: tuple[Interaction, ...] = ()
    """One for each pair of dimensions, the greatest first."""
    curves: tuple[Curve, ...] = ()
    """One for each dimension, in the order of the space."""
    maps: tuple[Map, ...] = ()
    """Of the two strongest pairs, if they explain 1 % or more, and of `ALWAYS_MAPPED` where both
    are dimensions."""


def analyse(
    trials: Iterable[Trial], space: Space, response: Response, seed: int = 0
) -> Sensitivity:
    """What the trials of stage explore say about `response`; other stages' are not looked at.

    Args:
        trials: a sweep's.
        space: its space.
        response: what to explain.
        seed: of samples, folds and draws. The same gives the same to the last digit.
    """
    explore = sorted((t for t in trials if t.stage == "explore"), key=lambda trial: trial.index)
    measured = [trial for trial in explore if response.of(trial) is not None]
    values = np.array([response.of(trial) for trial in measured], dtype=float)
    nothing = Sensitivity(
        response=response,
        names=tuple(space),
        trials=len(measured),
        left_out=len(explore) - len(measured),
        r2=None,
        supported=False,
        verdict=_refusal(space, response, values) or "",
    )
    if nothing.verdict:
        return nothing
    features = with_distances(encode([params(trial, space) for trial in measured], space), space)
    values = np.log(values) if response.log else values
    # The matrices are small: threads would cost several times what they save.
    with threadpool_limits(limits=1):
        r2 = cross_validated_r2(features, values, seed)
        judged = replace(nothing, r2=r2, verdict=f"R² {r2:.2f} of {len(measured)} trials")
        if r2 < THRESHOLD:
            return _unsupported(judged, r2, size_for(THRESHOLD, features, values, r2, seed))
        surrogate = fit(features, values, seed, _RESTARTS)
        kernels = likely_kernels(surrogate, seed)
        learner = measured[0].config.learner
        return _supported(judged, _Model(surrogate, kernels, space, learner, response.log, seed))


def _refusal(space: Space, response: Response, values: np.ndarray) -> str | None:
    """Why there is nothing to fit."""
    if not space:
        return "the space has no dimensions"
    if len(values) < MIN_TRIALS:
        return (
            f"{len(values)} trials of stage explore with a {response.title}: "
            f"at least {MIN_TRIALS} are needed"
        )
    if np.ptp(values) <= 1e-9 * np.abs(values).max():
        return f"{response.title} is the same in all {len(values)} trials"
    return None


def _unsupported(judged: Sensitivity, r2: float, measured: int | None) -> Sensitivity:
    """With how many trials there have to be, for so many to be measured."""
    # What is below the threshold is not to look like it when it is rounded.
    shown = min(r2, THRESHOLD - 0.01)
    refusal = f"R² {shown:.2f} of {judged.trials} trials: the data do not support indices"
    if measured is None:
        return replace(judged, verdict=f"{refusal}, and there is no sign that more trials would")
    trials = judged.trials + judged.left_out
    needed = max(math.ceil(measured * trials / judged.trials), trials + 1)
    # Up to two digits: it is an extrapolation.
    unit = 10 ** max(len(str(needed)) - 2, 0)
    return replace(
        judged, verdict=f"{refusal}; about {math.ceil(needed / unit) * unit} trials would"
    )


def _supported(judged: Sensitivity, model: "_Model") -> Sensitivity:
    indices, interactions = _indices(model)
    return replace(
        judged,
        supported=True,
        indices=indices,
        interactions=interactions,
        curves=tuple(_curve(model, name) for name in model.space),
        maps=tuple(_map(model, pair) for pair in _mapped(interactions)),
    )


@dataclass(frozen=True)
class _Model:
    """The response as a function of the unit cube."""

    surrogate: Surrogate
    kernels: list[Any]
    space: Space
    learner: LearnerConfig
    log: bool
    seed: int

    def features(self, points: np.ndarray) -> np.ndarray:
        return with_distances(cube_features(points, self.space, self.learner), self.space)

    def draws(self, features: np.ndarray) -> np.ndarray:
        return posterior_draws(self.surrogate, self.kernels, features, self.seed)

    def sample(self, points: int, second: bool) -> np.ndarray:
        """Features of Saltelli's sample, for Sobol indices of so many points."""
        dimensions = len(self.space)
        problem = {
            "num_vars": dimensions,
            "names": list(self.space),
            "bounds": [[0.0, 1.0]] * dimensions,
        }
        cube = sobol.sample(problem, points, calc_second_order=second, seed=self.seed)
        return self.features(cube)

    def over_others(
        self, names: tuple[str, ...], values: Iterable[tuple[Any, ...]], points: int
    ) -> np.ndarray:
        """Features [values, points, features] of points that fill the cube but for `names`."""
        cube = qmc.Sobol(len(self.space), rng=self.seed).random(points)
        places = [list(self.space).index(name) for name in names]
        cubes = []
        for combination in values:
            cube[:, places] = [
                share(value, self.space[name])
                for name, value in zip(names, combination, strict=True)
            ]
            cubes.append(cube.copy())
        return self.features(np.vstack(cubes)).reshape(len(cubes), points, -1)

    def in_unit(self, values: np.ndarray) -> tuple[float, ...]:
        return tuple((np.exp(values) if self.log else values).tolist())


def _indices(model: _Model) -> tuple[tuple[Index, ...], tuple[Interaction, ...]]:
    """The Sobol indices of the surrogate's mean, and intervals of those of a dimension.

    As in Le Gratiet, Cannamela & Iooss 2014 ("A Bayesian approach for global sensitivity analysis
    of (multi-fidelity) computer codes"), an interval has both uncertainties in it: the indices are
    computed of draws from the surrogate's posterior, each with the sample's rows drawn with
    replacement.
    """
    names = list(model.space)
    features = model.sample(_POINTS, second=True)
    mean, draws = model.surrogate.mean(features).reshape(_POINTS, -1, 1), _resampled(model)
    firsts, totals = (
        list(map(_estimate, orders(mean, len(names))[:, 0], orders(draws, len(names))))
        for orders in (_first, _total)
    )
    indices = map(Index, names, firsts, totals)
    by_total = sorted(indices, key=lambda index: index.total.value, reverse=True)
    return tuple(by_total), _interactions(names, mean)


def _resampled(model: _Model) -> np.ndarray:
    """Outputs [points, dimensions + 2, draws] of posterior draws, each of rows of its own."""
    features = model.sample(_POINTS_OF_DRAWS, second=False)
    draws = model.draws(features)
    outputs = draws.reshape(_POINTS_OF_DRAWS, -1, draws.shape[1])
    generator = np.random.default_rng(model.seed)
    rows = generator.integers(_POINTS_OF_DRAWS, size=(_POINTS_OF_DRAWS, 1, draws.shape[1]))
    return np.take_along_axis(outputs, rows, axis=0)


def _estimate(value: float, draws: np.ndarray) -> Estimate:
    """A 95 % interval that reaches as far as the percentiles of the draws and as those mirrored.

    An index is quadratic in the response, so doubt adds to it: draws lie above the index of the
    mean, as that of the mean may lie above the true one. Percentiles would leave out an index
    of 0, which every draw exceeds; mirrored at the index of the mean, as in the basic bootstrap
    (Davison & Hinkley 1997, section 5.2), they do not.
    """
    low, high = np.percentile(draws, [2.5, 97.5])
    ends = np.array([value, low, high, 2 * value - low, 2 * value - high]).clip(0, 1)
    return Estimate(float(ends[0]), float(ends.min()), float(ends.max()))


def _first(outputs: np.ndarray, dimensions: int) -> np.ndarray:
    """First-order indices [dimensions, m] of Saltelli's sample [points, columns, m]."""
    outputs = outputs - outputs.mean(axis=(0, 1))
    a, b = outputs[:, 0], outputs[:, -1]
    return np.array([first_order(a, outputs[:, 1 + place], b) for place in range(dimensions)])


def _total(outputs: np.ndarray, dimensions: int) -> np.ndarray:
    """Total-order indices, likewise."""
    a, b = outputs[:, 0], outputs[:, -1]
    return np.array([total_order(a, outputs[:, 1 + place], b) for place in range(dimensions)])


def _interactions(names: list[str], outputs: np.ndarray) -> tuple[Interaction, ...]:
    """Second-order indices of a sample [points, 2 dimensions + 2, 1]."""
    outputs = outputs[..., 0] - outputs.mean()
    a, b = outputs[:, 0], outputs[:, -1]
    found = []
    for one, other in itertools.combinations(range(len(names)), 2):
        mixed = outputs[:, 1 + one], outputs[:, 1 + other], outputs[:, 1 + len(names) + one]
        value = float(np.clip(second_order(a, *mixed, b), 0, 1))
        found.append(Interaction((names[one], names[other]), value))
    return tuple(sorted(found, key=lambda interaction: -interaction.value))


def _curve(model: _Model, name: str) -> Curve:
    """The average is linear in the response, so what draws of it scatter about is its mean."""
    values = _grid(model.space[name], _CURVE)
    features = model.over_others((name,), [(value,) for value in values], _AVERAGED)
    rows = np.concatenate(list(features))
    mean = model.surrogate.mean(rows).reshape(len(values), _AVERAGED).mean(axis=1)
    draws = model.draws(rows).reshape(len(values), _AVERAGED, -1).mean(axis=1)
    reach = _NORMAL_95 * np.sqrt(np.mean((draws - mean[:, None]) ** 2, axis=1))
    return Curve(name, values, *map(model.in_unit, (mean, mean - reach, mean + reach)))


def _mapped(interactions: tuple[Interaction, ...]) -> list[tuple[str, str]]:
    """The pairs of which there is a map."""
    pairs = [interaction.names for interaction in interactions]
    always = [pair for pair in pairs if set(pair) == set(ALWAYS_MAPPED)]
    strongest = [i.names for i in interactions[:_STRONGEST] if i.value >= _WORTH_A_MAP]
    return list(dict.fromkeys(strongest + always))


def _map(model: _Model, names: tuple[str, str]) -> Map:
    x, y = (_grid(model.space[name], _MAP) for name in names)
    rows = [
        model.surrogate.mean(np.concatenate(list(features))).reshape(len(x), -1).mean(axis=1)
        for features in (
            model.over_others(names, [(first, second) for first in x], _AVERAGED_OF_MAPS)
            for second in y
        )
    ]
    return Map(names, x, y, tuple(model.in_unit(row) for row in rows))


def _grid(distribution: BaseDistribution, size: int) -> tuple[Any, ...]:
    """All choices, or about `size` values (of fewer, all) that are even on the scale."""
    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    spaced = np.geomspace if distribution.log else np.linspace
    values = spaced(low, high, size).clip(low, high)
    if step is None:
        return tuple(dict.fromkeys(values.tolist()))
    nearest = dict.fromkeys(np.rint((values - low) / step).astype(int).tolist())
    return tuple(min(low + place * step, high) for place in nearest)
