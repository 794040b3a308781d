"""A Gaussian-process surrogate of a response: cheap to evaluate, with a measure of uncertainty."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

# Bounds of the kernel search: variances in units of the response's variance, lengths in units of
# the range. At the longest length the response is nearly linear in a feature. Longer ones would let
# the likelihood drop a weak feature entirely, together with all uncertainty about it.
_AMPLITUDE = (1e-2, 1e2)
_LENGTH = (0.05, 5.0)
_NOISE = (1e-6, 1e1)

SMOOTHNESS = 2.5
"""Smoothness nu of the Matern kernel."""

_KERNEL_VALUES = 128
"""Maximum number of values for the kernel search, whose cost is cubic in it. A kernel has few
parameters, so these suffice; predictions use all values."""

_BLOCK = 1024
"""Number of rows predicted at a time, which limits the memory for their covariances."""


@dataclass(frozen=True)
class Surrogate:
    """The noise-free response, as a posterior over functions of the features."""

    noisy: GaussianProcessRegressor
    """Model with noise in its kernel, on the standardised values used for the kernel search."""
    latent: GaussianProcessRegressor
    """Model without noise in its kernel, on all standardised values."""
    centre: float
    """Mean of the values."""
    scale: float
    """Standard deviation of the values."""

    def mean(self, features: np.ndarray) -> np.ndarray:
        """Posterior mean [n] at features [n, features]."""
        return self.centre + self.scale * in_blocks(self.latent.predict, features)


def fit(features: np.ndarray, values: np.ndarray, seed: int = 0, restarts: int = 0) -> Surrogate:
    """Fit by maximum marginal likelihood (Rasmussen & Williams 2006, chapter 5).

    The kernel is a Matern 5/2 kernel with one length per feature and one amplitude, plus white
    noise.

    Args:
        features: features within [0, 1]: [n, features]. The kernel search uses the first rows,
            which should be as evenly spread as all rows are; in a Sobol design they are.
        values: values of the response, not all equal: [n].
        seed: seed of the restarts.
        restarts: number of starts of the kernel search besides the one with all lengths 1.
    """
    lengths = np.ones(features.shape[1])
    kernel = ConstantKernel(1.0, _AMPLITUDE) * Matern(lengths, _LENGTH, nu=SMOOTHNESS)
    kernel = kernel + WhiteKernel(0.1, _NOISE)
    centre, scale = float(np.mean(values)), float(np.std(values))
    standard = (values - centre) / scale
    noisy = GaussianProcessRegressor(kernel, n_restarts_optimizer=restarts, random_state=seed)
    with warnings.catch_warnings():
        # The length of a feature without effect ends at its bound.
        warnings.simplefilter("ignore", ConvergenceWarning)
        noisy.fit(features[:_KERNEL_VALUES], standard[:_KERNEL_VALUES])
    best = noisy.kernel_
    latent = GaussianProcessRegressor(best.k1, alpha=best.k2.noise_level, optimizer=None)
    return Surrogate(noisy, latent.fit(features, standard), centre, scale)


def in_blocks(function: Callable[[np.ndarray], np.ndarray], features: np.ndarray) -> np.ndarray:
    """Apply `function` to a block of rows at a time and concatenate the results."""
    starts = range(0, len(features), _BLOCK)
    return np.concatenate([function(features[start : start + _BLOCK]) for start in starts])
