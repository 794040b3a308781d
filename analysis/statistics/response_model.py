"""A fitted response as a function on the search space, and the points where it is evaluated."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from SALib.sample import sobol
from scipy.stats import qmc

from analysis.statistics.encoding import (
    Space,
    cube_features,
    unit_coordinate,
    with_loop_distances,
)
from analysis.statistics.posterior import Draws
from analysis.statistics.surrogate import Surrogate
from memmeta.config import LearnerConfig


class EvaluationPoints:
    """Features of the configs at which surrogates are evaluated, cached for all responses."""

    def __init__(self, space: Space, learner: LearnerConfig, seed: int) -> None:
        self.space = space
        self.seed = seed
        self._learner = learner
        self._cache: dict[tuple[Any, ...], np.ndarray] = {}

    def saltelli(self, points: int, second_order: bool) -> np.ndarray:
        """Features of Saltelli's sample for Sobol indices, from `points` base points."""
        if (points, second_order) not in self._cache:
            dimensions = len(self.space)
            problem = {
                "num_vars": dimensions,
                "names": list(self.space),
                "bounds": [[0.0, 1.0]] * dimensions,
            }
            cube = sobol.sample(problem, points, calc_second_order=second_order, seed=self.seed)
            self._cache[points, second_order] = self._features(cube)
        return self._cache[points, second_order]

    def over_others(
        self, names: tuple[str, ...], values: tuple[tuple[Any, ...], ...], points: int
    ) -> np.ndarray:
        """Features of points that fill the cube, with `names` fixed to each of `values` in turn.

        Returns:
            [values * points, features]; the points of one combination of values are adjacent.
        """
        if (names, values, points) not in self._cache:
            cube = qmc.Sobol(len(self.space), rng=self.seed).random(points)
            cubes = np.tile(cube, (len(values), 1, 1))
            for column, name in enumerate(names):
                distribution = self.space[name]
                fixed = [
                    unit_coordinate(combination[column], distribution) for combination in values
                ]
                cubes[:, :, list(self.space).index(name)] = np.array(fixed)[:, None]
            self._cache[names, values, points] = self._features(np.concatenate(list(cubes)))
        return self._cache[names, values, points]

    def _features(self, points: np.ndarray) -> np.ndarray:
        return with_loop_distances(cube_features(points, self.space, self._learner), self.space)


@lru_cache(maxsize=1)
def evaluation_points(
    space: tuple[tuple[str, BaseDistribution], ...], learner: LearnerConfig, seed: int
) -> EvaluationPoints:
    """The evaluation points of a space. The last ones are cached, for the next response.

    Args:
        space: the items of the search space.
        learner: supplies the fields that are not in the space.
        seed: seed of the samples.
    """
    return EvaluationPoints(dict(space), learner, seed)


@dataclass(frozen=True)
class ResponseModel:
    """The response as a function on the unit cube, with draws that express its uncertainty."""

    surrogate: Surrogate
    draws: Draws
    points: EvaluationPoints
    log: bool
    """Whether the surrogate models the logarithm of the response."""

    def in_unit(self, values: np.ndarray) -> tuple[float, ...]:
        """Convert the surrogate's output to the response's unit."""
        return tuple((np.exp(values) if self.log else values).tolist())
