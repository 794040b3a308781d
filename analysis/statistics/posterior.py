"""Draws from the posterior of a surrogate, over both kernels and functions."""

import math
from typing import Any

import numpy as np
import scipy.linalg
from sklearn.gaussian_process import GaussianProcessRegressor

from analysis.statistics.surrogate import SMOOTHNESS, Surrogate, in_blocks

_BURN_IN, _KERNELS, _DRAWS_PER_KERNEL = 10, 12, 12
_WAVES = 256


def likely_kernels(surrogate: Surrogate, seed: int = 0) -> list[Any]:
    """Draw kernels from their posterior, with a prior that is flat in logarithms within the bounds.

    The most likely kernel alone would be overconfident: kernels that drop a weak feature and
    kernels that keep it are typically about equally likely.

    Uses slice sampling of one parameter after the other, starting from the most likely kernel
    (Neal 2003, section 4). The bounds are the initial interval, which then shrinks.
    """
    generator = np.random.default_rng(seed)
    noisy = surrogate.noisy
    theta = noisy.kernel_.theta.copy()
    height = noisy.log_marginal_likelihood(theta, clone_kernel=False)
    kernels = []
    for _ in range(_BURN_IN + _KERNELS):
        for index, (low, high) in enumerate(noisy.kernel.bounds):
            floor, start = height - generator.exponential(), theta[index]
            while True:
                theta[index] = generator.uniform(low, high)
                height = noisy.log_marginal_likelihood(theta, clone_kernel=False)
                if height >= floor:
                    break
                low, high = (theta[index], high) if theta[index] < start else (low, theta[index])
        kernels.append(noisy.kernel.clone_with_theta(theta.copy()))
    return kernels[_BURN_IN:]


class Draws:
    """Functions drawn from the posterior of a surrogate.

    A function is drawn from the prior and then corrected towards the values. A draw from the prior
    is a sum of waves whose frequencies follow the spectral density of the Matern kernel: Student's
    t with twice the smoothness as degrees of freedom. The cost is linear in the number of points,
    unlike that of a Cholesky factor of the joint covariance (Wilson et al. 2020, "Efficiently
    sampling functions from Gaussian process posteriors").
    """

    def __init__(self, surrogate: Surrogate, kernels: list[Any], seed: int = 0) -> None:
        """Draw the functions.

        Args:
            surrogate: the surrogate, which holds the values.
            kernels: kernels from `likely_kernels`.
            seed: seed of the functions.
        """
        generator = np.random.default_rng(seed)
        self._surrogate = surrogate
        self._by_kernel = [_KernelDraws(kernel, surrogate.latent, generator) for kernel in kernels]

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Evaluate all functions at features [m, features].

        Returns:
            Function values [m, draws]; the twelve draws of one kernel are adjacent.
        """
        draws = np.hstack([in_blocks(evaluate, features) for evaluate in self._by_kernel])
        return self._surrogate.centre + self._surrogate.scale * draws


class _KernelDraws:
    """Draws of the standardised response for one kernel."""

    def __init__(
        self, kernel: Any, latent: GaussianProcessRegressor, generator: np.random.Generator
    ) -> None:
        self._signal, noise = kernel.k1, kernel.k2.noise_level
        self._known, values = latent.X_train_, latent.y_train_
        freedom = 2 * SMOOTHNESS
        tails = np.sqrt(generator.chisquare(freedom, _WAVES) / freedom)
        normal = generator.normal(size=(self._known.shape[1], _WAVES))
        self._frequencies = normal / tails / self._signal.k2.length_scale.reshape(-1, 1)
        self._phases = generator.uniform(0, 2 * math.pi, _WAVES)
        height = math.sqrt(2 * self._signal.k1.constant_value / _WAVES)
        self._heights = height * generator.normal(size=(_WAVES, _DRAWS_PER_KERNEL))
        residuals = values[:, None] - self._prior(self._known)
        residuals -= math.sqrt(noise) * generator.normal(size=residuals.shape)
        covariance = self._signal(self._known) + noise * np.eye(len(self._known))
        self._corrections = scipy.linalg.solve(covariance, residuals, assume_a="pos")

    def __call__(self, features: np.ndarray) -> np.ndarray:
        draws: np.ndarray = self._prior(features)
        draws += self._signal(features, self._known) @ self._corrections
        return draws

    def _prior(self, features: np.ndarray) -> np.ndarray:
        waves: np.ndarray = np.cos(features @ self._frequencies + self._phases)
        return waves @ self._heights
