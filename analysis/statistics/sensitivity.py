"""Which dimensions a response depends on, from the trials of a space-filling design.

A surrogate (see `surrogate.py`) is fitted to the trials of stage explore, and its Sobol indices and
average effects are computed, but only where it predicts trials that it has not seen.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
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

from analysis.records.trials import Trial
from analysis.statistics.encoding import Space, cube_features, encode, share, size, with_distances
from analysis.statistics.observations import observations
from analysis.statistics.responses import Response
from analysis.statistics.surrogate import (
    R2,
    Draws,
    Surrogate,
    cross_validated_r2,
    fit,
    likely_kernels,
    size_for,
)
from memmeta.config import LearnerConfig

THRESHOLD = 0.7
"""The cross-validated R² from which a surrogate stands for the response, as is usual."""

MIN_CONFIGS = 10
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
    configs: int
    """How many different configs these were."""
    left_out: int
    """How many of stage explore had none: diverged, out of memory, not finished."""
    r2: R2 | None
    """R² of the surrogate for configs it has not seen; None without enough of them, or variance."""
    supported: bool
    """Whether its lower end reaches `THRESHOLD`. All fields below `verdict` are empty otherwise."""
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
    measured = sum(response.of(trial) is not None for trial in explore)
    found = observations(explore, space, response)
    values = np.array([of.value for of in found], dtype=float)
    nothing = Sensitivity(
        response=response,
        names=tuple(space),
        trials=measured,
        configs=len(found),
        left_out=len(explore) - measured,
        r2=None,
        supported=False,
        verdict="",
    )
    refusal = _refusal(nothing, values)
    if refusal:
        return replace(nothing, verdict=refusal)
    features = with_distances(encode([of.params for of in found], space), space)
    values = np.log(values) if response.log else values
    # The matrices are small: threads would cost several times what they save.
    with threadpool_limits(limits=1):
        r2 = cross_validated_r2(features, values, seed)
        judged = replace(nothing, r2=r2)
        if r2.low < THRESHOLD:
            needed = size_for(THRESHOLD, features, values, r2, seed)
            return replace(judged, verdict=_unsupported(judged, r2, needed, size(space)))
        surrogate = fit(features, values, seed, _RESTARTS)
        draws = Draws(surrogate, likely_kernels(surrogate, seed), seed)
        places = _places(tuple(space.items()), explore[0].config.learner, seed)
        return _supported(judged, _Model(surrogate, draws, places, response.log))


def _refusal(nothing: Sensitivity, values: np.ndarray) -> str | None:
    """Why there is nothing to fit."""
    title, trials, configs = nothing.response.title, nothing.trials, nothing.configs
    if not nothing.names:
        return "the space has no dimensions"
    if configs < MIN_CONFIGS:
        repeats = "" if configs == trials else f", of {configs} different configs"
        return (
            f"{trials} trials of stage explore with a {title}{repeats}: "
            f"at least {MIN_CONFIGS} are needed"
        )
    if np.ptp(values) <= 1e-9 * np.abs(values).max():
        return f"{title} is the same in all {trials} trials"
    return None


def _stated(r2: R2, low: float, judged: Sensitivity) -> str:
    """The range of R², with `low` at its lower end, and the trials behind it."""
    ends = dict.fromkeys([f"{low:.2f}", f"{r2.high:.2f}"])
    repeats = "" if judged.configs == judged.trials else f" ({judged.configs} configs)"
    return f"R² {' to '.join(ends)} of {judged.trials} trials{repeats}"


def _unsupported(judged: Sensitivity, r2: R2, needed: int | None, possible: float) -> str:
    """The verdict on a surrogate that does not predict, and how many trials would make one.

    Args:
        judged: without a verdict.
        r2: its R².
        needed: configs with a value that would do, about; None if no number would.
        possible: configs that the space has.
    """
    # A number below the threshold must not look like the threshold when it is rounded.
    stated = _stated(r2, min(r2.low, THRESHOLD - 0.01), judged)
    refusal = f"{stated}: the data do not support indices"
    if needed is None or needed > possible:
        return f"{refusal}, and there is no sign that more trials would"
    trials = judged.trials + judged.left_out
    more = max(math.ceil(needed * trials / judged.configs), trials + 1)
    # Up to two digits: it is an extrapolation.
    unit = 10 ** max(len(str(more)) - 2, 0)
    return f"{refusal}; about {math.ceil(more / unit) * unit} trials would"


def _supported(judged: Sensitivity, model: "_Model") -> Sensitivity:
    assert judged.r2 is not None
    indices, interactions = _indices(model)
    return replace(
        judged,
        supported=True,
        verdict=_stated(judged.r2, judged.r2.low, judged),
        indices=indices,
        interactions=interactions,
        curves=tuple(_curve(model, name) for name in model.places.space),
        maps=tuple(_map(model, pair) for pair in _mapped(interactions)),
    )


class _Places:
    """Features of configs at which surrogates are evaluated, computed once for all responses."""

    def __init__(self, space: Space, learner: LearnerConfig, seed: int) -> None:
        self.space = space
        self.seed = seed
        self._learner = learner
        self._known: dict[tuple[Any, ...], np.ndarray] = {}

    def sample(self, points: int, second: bool) -> np.ndarray:
        """Features of Saltelli's sample for Sobol indices, from `points` base points."""
        if (points, second) not in self._known:
            dimensions = len(self.space)
            problem = {
                "num_vars": dimensions,
                "names": list(self.space),
                "bounds": [[0.0, 1.0]] * dimensions,
            }
            cube = sobol.sample(problem, points, calc_second_order=second, seed=self.seed)
            self._known[points, second] = self._features(cube)
        return self._known[points, second]

    def over_others(
        self, names: tuple[str, ...], values: tuple[tuple[Any, ...], ...], points: int
    ) -> np.ndarray:
        """Features of points that fill the cube except in `names`, where they have `values`.

        Returns:
            [values * points, features], those with one combination of values in a row.
        """
        if (names, values, points) not in self._known:
            cube = qmc.Sobol(len(self.space), rng=self.seed).random(points)
            cubes = np.tile(cube, (len(values), 1, 1))
            for column, name in enumerate(names):
                shares = [share(combination[column], self.space[name]) for combination in values]
                cubes[:, :, list(self.space).index(name)] = np.array(shares)[:, None]
            self._known[names, values, points] = self._features(np.concatenate(list(cubes)))
        return self._known[names, values, points]

    def _features(self, points: np.ndarray) -> np.ndarray:
        return with_distances(cube_features(points, self.space, self._learner), self.space)


@lru_cache(maxsize=1)
def _places(
    space: tuple[tuple[str, BaseDistribution], ...], learner: LearnerConfig, seed: int
) -> _Places:
    return _Places(dict(space), learner, seed)


@dataclass(frozen=True)
class _Model:
    """The response as a function of the unit cube."""

    surrogate: Surrogate
    draws: Draws
    places: _Places
    log: bool

    def in_unit(self, values: np.ndarray) -> tuple[float, ...]:
        return tuple((np.exp(values) if self.log else values).tolist())


def _indices(model: _Model) -> tuple[tuple[Index, ...], tuple[Interaction, ...]]:
    """The Sobol indices of the surrogate's mean, and intervals of those of a dimension.

    As in Le Gratiet, Cannamela & Iooss 2014 ("A Bayesian approach for global sensitivity analysis
    of (multi-fidelity) computer codes"), an interval has both uncertainties in it: the indices are
    computed of draws from the surrogate's posterior, each with the sample's rows drawn with
    replacement.
    """
    names = list(model.places.space)
    features = model.places.sample(_POINTS, second=True)
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
    features = model.places.sample(_POINTS_OF_DRAWS, second=False)
    draws = model.draws(features)
    outputs = draws.reshape(_POINTS_OF_DRAWS, -1, draws.shape[1])
    generator = np.random.default_rng(model.places.seed)
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
    values = _grid(model.places.space[name], _CURVE)
    rows = model.places.over_others((name,), tuple((value,) for value in values), _AVERAGED)
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
    x, y = (_grid(model.places.space[name], _MAP) for name in names)
    rows = model.places.over_others(
        names, tuple((first, second) for second in y for first in x), _AVERAGED_OF_MAPS
    )
    means = model.surrogate.mean(rows).reshape(len(y), len(x), _AVERAGED_OF_MAPS).mean(axis=2)
    return Map(names, x, y, tuple(map(model.in_unit, means)))


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
