"""A Gaussian process in place of the response: cheap to ask, and it knows where it is in doubt."""

import math
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import KFold

# Where kernels are searched: variances in units of the response's, lengths in the range's. At the
# longest length the response is all but linear in a feature. Longer ones would let the likelihood
# drop a weak feature altogether, and with it all doubt about it.
_AMPLITUDE = (1e-2, 1e2)
_LENGTH = (0.05, 5.0)
_NOISE = (1e-6, 1e1)

_SMOOTHNESS = 2.5
_BURN_IN, _KERNELS, _DRAWS_OF_EACH = 10, 12, 12
_WAVES = 256

_SEARCHED = 128
"""The kernel is found from this many values: the search takes time by the cube of their number,
and a kernel has few parameters. Predictions use all values."""

_FOLDS, _FOLDS_OF_MANY, _MANY = 10, 5, 100
"""The number of folds, and the number from `_MANY` values on: four fifths of many values are nearly
as good as all of them."""

_BLOCK = 1024
"""Rows that are predicted at a time, which bounds the memory for their covariances."""

_SHUFFLES = 5
"""The values are folded this often: R² of one study was .33, .08, .19, .63 and .45."""


@dataclass(frozen=True)
class Surrogate:
    """The response without its noise, as a posterior over functions of the features."""

    noisy: GaussianProcessRegressor
    """With noise in its kernel. It holds the standardised values that the kernel was found from."""
    latent: GaussianProcessRegressor
    """Without noise. It holds all standardised values."""
    centre: float
    """Of the values."""
    scale: float
    """Their standard deviation."""

    def mean(self, features: np.ndarray) -> np.ndarray:
        """The posterior mean [n] at [n, features]."""
        return self.centre + self.scale * _in_blocks(self.latent.predict, features)


def fit(features: np.ndarray, values: np.ndarray, seed: int = 0, restarts: int = 0) -> Surrogate:
    """The surrogate of greatest marginal likelihood (Rasmussen & Williams 2006, chapter 5).

    Its kernel is a Matern 5/2 with a length for each feature and one amplitude, and white noise.

    Args:
        features: [n, features], each within [0, 1]. The kernel is found from the first rows, which
            are to fill the cube as all do: those of a Sobol design.
        values: [n], not all equal.
        seed: of the restarts.
        restarts: further starts of the search, beside the one at length 1.
    """
    lengths = np.ones(features.shape[1])
    kernel = ConstantKernel(1.0, _AMPLITUDE) * Matern(lengths, _LENGTH, nu=_SMOOTHNESS)
    kernel = kernel + WhiteKernel(0.1, _NOISE)
    centre, scale = float(np.mean(values)), float(np.std(values))
    standard = (values - centre) / scale
    noisy = GaussianProcessRegressor(kernel, n_restarts_optimizer=restarts, random_state=seed)
    with warnings.catch_warnings():
        # Of lengths at their bound, as that of a feature without effect is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        noisy.fit(features[:_SEARCHED], standard[:_SEARCHED])
    found = noisy.kernel_
    latent = GaussianProcessRegressor(found.k1, alpha=found.k2.noise_level, optimizer=None)
    return Surrogate(noisy, latent.fit(features, standard), centre, scale)


@dataclass(frozen=True)
class R2:
    """R² for values that the surrogate has not seen."""

    shuffles: tuple[float, ...]
    """One for each way to fold the values."""

    @property
    def low(self) -> float:
        """The lowest. Decisions rest on it, since a higher one may be due to lucky folds."""
        return min(self.shuffles)

    @property
    def high(self) -> float:
        """The highest."""
        return max(self.shuffles)

    @property
    def mean(self) -> float:
        """The mean."""
        return statistics.fmean(self.shuffles)


def cross_validated_r2(features: np.ndarray, values: np.ndarray, seed: int = 0) -> R2:
    """The share of the variance of `values` that the surrogate predicts out of fold.

    The values are shuffled into folds several times. There are ten folds, five from 100 values on,
    and at most half as many folds as values. The kernel is found for each fold without its values.
    The values are noisy, so even a perfect surrogate stays below 1.

    Args:
        features: [n, features], each within [0, 1], n at least 4. No two rows are equal:
            otherwise one could predict the other.
        values: [n], not all equal.
        seed: of the folds.
    """
    seeds = np.random.default_rng(seed).integers(2**32, size=_SHUFFLES).tolist()
    return R2(tuple(_out_of_fold_r2(features, values, own) for own in seeds))


def _out_of_fold_r2(features: np.ndarray, values: np.ndarray, seed: int) -> float:
    folds = _FOLDS_OF_MANY if len(values) >= _MANY else min(_FOLDS, len(values) // 2)
    predicted = np.empty(len(values))
    for known, left_out in KFold(folds, shuffle=True, random_state=seed).split(features):
        if np.ptp(values[known]) == 0:
            predicted[left_out] = values[known][0]
        else:
            predicted[left_out] = fit(features[known], values[known]).mean(features[left_out])
    return float(1 - np.mean((values - predicted) ** 2) / np.var(values))


def size_for(
    target: float, features: np.ndarray, values: np.ndarray, r2: R2, seed: int = 0
) -> int | None:
    """About how many values it would take for a cross-validated R² of `target`.

    R² of halves and of three quarters of the values (two of each), and the mean R² of all, give
    1 - R² = a n^-b. That line is followed to `target`. It is an extrapolation, and rather too low
    where there is noise, which no number of values takes away.

    Args:
        target: more than the lower end of `r2`.
        features: [n, features], each within [0, 1], n at least 8.
        values: [n].
        r2: `cross_validated_r2` of all of them.
        seed: of the halves.

    Returns:
        None where R² does not rise with n, 100 n would not do, or the noise alone is too much.
    """
    if fit(features, values).latent.alpha >= 1 - target:
        return None
    count = len(values)
    order = np.random.default_rng(seed).permutation(count)
    sizes, errors = [count], [_error(r2.mean)]
    for size in (count // 2, 3 * count // 4):
        for rows in (order[:size], order[-size:]):
            if np.ptp(values[rows]) > 0:
                sizes.append(size)
                errors.append(_error(_out_of_fold_r2(features[rows], values[rows], seed)))
    if len(set(sizes)) == 1:
        return None
    slope = float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])
    # The logarithm: a slope of almost nothing asks for more than a float holds.
    growth = math.log((1 - target) / errors[0]) / slope if slope < 0 else math.inf
    return math.ceil(count * math.exp(growth)) if growth <= math.log(100) else None


def _error(r2: float) -> float:
    """1 - R². A surrogate that predicts no better than the mean has 1."""
    return 1 - max(r2, 0.0)


def likely_kernels(surrogate: Surrogate, seed: int = 0) -> list[Any]:
    """Kernels drawn from their posterior, the prior flat in logarithms within the bounds.

    The most likely kernel alone would be too sure of itself: as a rule one that drops a weak
    feature, and one that does not, are about as likely.

    They are slice samples, one parameter after the other, from the most likely kernel on (Neal
    2003, section 4: the bounds are the first interval, which shrinks).
    """
    generator = np.random.default_rng(seed)
    noisy = surrogate.noisy
    theta = noisy.kernel_.theta.copy()
    height = noisy.log_marginal_likelihood(theta, clone_kernel=False)
    found = []
    for _ in range(_BURN_IN + _KERNELS):
        for place, (low, high) in enumerate(noisy.kernel.bounds):
            floor, start = height - generator.exponential(), theta[place]
            while True:
                theta[place] = generator.uniform(low, high)
                height = noisy.log_marginal_likelihood(theta, clone_kernel=False)
                if height >= floor:
                    break
                low, high = (theta[place], high) if theta[place] < start else (low, theta[place])
        found.append(noisy.kernel.clone_with_theta(theta.copy()))
    return found[_BURN_IN:]


def _in_blocks(function: Callable[[np.ndarray], np.ndarray], features: np.ndarray) -> np.ndarray:
    """Apply `function` to `_BLOCK` rows at a time."""
    blocks = range(0, len(features), _BLOCK)
    return np.concatenate([function(features[begin : begin + _BLOCK]) for begin in blocks])


class Draws:
    """Functions that the response may be, given its values.

    A function starts as a draw of the prior and is then moved towards the values. A draw of the
    prior is a sum of waves whose frequencies follow its spectral density: Student's t with twice
    the smoothness as degrees of freedom. The cost is linear in the number of points, unlike that
    of a Cholesky factor of the joint covariance (Wilson et al. 2020, "Efficiently sampling
    functions from Gaussian process posteriors").
    """

    def __init__(self, surrogate: Surrogate, kernels: list[Any], seed: int = 0) -> None:
        """Draw the functions.

        Args:
            surrogate: holds the values.
            kernels: `likely_kernels` of it.
            seed: of the functions.
        """
        generator = np.random.default_rng(seed)
        self._surrogate = surrogate
        self._of_kernels = [_OfKernel(kernel, surrogate.latent, generator) for kernel in kernels]

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """The functions at [m, features]: [m, draws], twelve of each kernel in a row."""
        draws = np.hstack([_in_blocks(of_kernel, features) for of_kernel in self._of_kernels])
        return self._surrogate.centre + self._surrogate.scale * draws


class _OfKernel:
    """Draws of the posterior with one kernel, of standardised values."""

    def __init__(
        self, kernel: Any, latent: GaussianProcessRegressor, generator: np.random.Generator
    ) -> None:
        self._signal, noise = kernel.k1, kernel.k2.noise_level
        self._known, values = latent.X_train_, latent.y_train_
        freedom = 2 * _SMOOTHNESS
        tails = np.sqrt(generator.chisquare(freedom, _WAVES) / freedom)
        normal = generator.normal(size=(self._known.shape[1], _WAVES))
        self._frequencies = normal / tails / self._signal.k2.length_scale.reshape(-1, 1)
        self._phases = generator.uniform(0, 2 * math.pi, _WAVES)
        height = math.sqrt(2 * self._signal.k1.constant_value / _WAVES)
        self._heights = height * generator.normal(size=(_WAVES, _DRAWS_OF_EACH))
        missed = values[:, None] - self._prior(self._known)
        missed -= math.sqrt(noise) * generator.normal(size=missed.shape)
        covariance = self._signal(self._known) + noise * np.eye(len(self._known))
        self._moves = scipy.linalg.solve(covariance, missed, assume_a="pos")

    def __call__(self, features: np.ndarray) -> np.ndarray:
        draws: np.ndarray = self._prior(features)
        draws += self._signal(features, self._known) @ self._moves
        return draws

    def _prior(self, features: np.ndarray) -> np.ndarray:
        waves: np.ndarray = np.cos(features @ self._frequencies + self._phases)
        return waves @ self._heights
