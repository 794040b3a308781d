"""A Gaussian process in place of the response: cheap to ask, and it knows where it is in doubt."""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
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
_FOLDS = 10
_BURN_IN, _KERNELS, _DRAWS_OF_EACH = 10, 24, 6
_WAVES = 256


@dataclass(frozen=True)
class Surrogate:
    """The response without its noise, as a posterior over functions of the features."""

    noisy: GaussianProcessRegressor
    """Of standardised values, with the noise in its kernel."""
    latent: GaussianProcessRegressor
    """The same without it."""
    centre: float
    """Of the values."""
    scale: float
    """Their standard deviation."""

    def mean(self, features: np.ndarray) -> np.ndarray:
        """The posterior mean [n] at [n, features]."""
        mean: np.ndarray = self.latent.predict(features)
        return self.centre + self.scale * mean


def fit(features: np.ndarray, values: np.ndarray, seed: int = 0, restarts: int = 0) -> Surrogate:
    """The surrogate of greatest marginal likelihood (Rasmussen & Williams 2006, chapter 5).

    Its kernel is a Matern 5/2 with a length for each feature and one amplitude, and white noise.

    Args:
        features: [n, features], each within [0, 1].
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
        noisy.fit(features, standard)
    found = noisy.kernel_
    latent = GaussianProcessRegressor(found.k1, alpha=found.k2.noise_level, optimizer=None)
    return Surrogate(noisy, latent.fit(features, standard), centre, scale)


def cross_validated_r2(features: np.ndarray, values: np.ndarray, seed: int = 0) -> float:
    """The share of the variance of `values` that the surrogate predicts out of fold.

    Ten shuffled folds (of fewer than 20 values, half as many as there are values); each has its
    own kernel. The values are noisy, so even a perfect surrogate stays below 1.

    Args:
        features: [n, features], each within [0, 1], n at least 4.
        values: [n], not all equal.
        seed: of the folds.
    """
    folds = KFold(min(_FOLDS, len(values) // 2), shuffle=True, random_state=seed)
    predicted = np.empty(len(values))
    for known, left_out in folds.split(features):
        if np.ptp(values[known]) == 0:
            predicted[left_out] = values[known][0]
        else:
            predicted[left_out] = fit(features[known], values[known]).mean(features[left_out])
    return float(1 - np.mean((values - predicted) ** 2) / np.var(values))


def size_for(
    target: float, features: np.ndarray, values: np.ndarray, r2: float, seed: int = 0
) -> int | None:
    """About how many values it would take for a cross-validated R² of `target`.

    R² of halves and of three quarters of the values (two of each), and that of all, give
    1 - R² = a n^-b, which is then followed beyond them. It is an extrapolation, and rather too low
    where there is noise, which no number of values takes away.

    Args:
        target: more than `r2`.
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
    sizes, errors = [count], [_error(r2)]
    for size in (count // 2, 3 * count // 4):
        for rows in (order[:size], order[-size:]):
            if np.ptp(values[rows]) > 0:
                sizes.append(size)
                errors.append(_error(cross_validated_r2(features[rows], values[rows], seed)))
    if len(set(sizes)) == 1:
        return None
    slope = float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])
    # The logarithm: a slope of almost nothing asks for more than a float holds.
    growth = math.log((1 - target) / _error(r2)) / slope if slope < 0 else math.inf
    return math.ceil(count * math.exp(growth)) if growth <= math.log(100) else None


def _error(r2: float) -> float:
    """1 - R², of what predicts no better than the mean: 1."""
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


def posterior_draws(
    surrogate: Surrogate, kernels: list[Any], features: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Functions that the response may be, given its values, at [m, features].

    Args:
        surrogate: holds the values.
        kernels: `likely_kernels` of it.
        features: where to evaluate the functions.
        seed: of the functions: the same ones, whatever the features.

    Returns:
        [m, draws], six for each kernel, those of a kernel in a row.
    """
    generator = np.random.default_rng(seed)
    draws = [_draws(kernel, surrogate.noisy, features, generator) for kernel in kernels]
    return surrogate.centre + surrogate.scale * np.hstack(draws)


def _draws(
    kernel: Any,
    noisy: GaussianProcessRegressor,
    features: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Draws of the prior, each then moved by what it misses of the values.

    Those of the prior are sums of waves whose frequencies are distributed as its spectral density:
    Student's t with twice the smoothness as degrees of freedom. Unlike with a Cholesky factor of
    the joint covariance, the cost is linear in the number of points (Wilson et al. 2020,
    "Efficiently sampling functions from Gaussian process posteriors").
    """
    signal, noise = kernel.k1, kernel.k2.noise_level
    known, values = noisy.X_train_, noisy.y_train_
    freedom = 2 * _SMOOTHNESS
    tails = np.sqrt(generator.chisquare(freedom, _WAVES) / freedom)
    normal = generator.normal(size=(known.shape[1], _WAVES))
    frequencies = normal / tails / signal.k2.length_scale.reshape(-1, 1)
    phases = generator.uniform(0, 2 * math.pi, _WAVES)
    height = math.sqrt(2 * signal.k1.constant_value / _WAVES)
    weights = height * generator.normal(size=(_WAVES, _DRAWS_OF_EACH))
    missed = values[:, None] - np.cos(known @ frequencies + phases) @ weights
    missed -= math.sqrt(noise) * generator.normal(size=missed.shape)
    covariance = signal(known) + noise * np.eye(len(known))
    draws: np.ndarray = np.cos(features @ frequencies + phases) @ weights
    draws += signal(features, known) @ np.linalg.solve(covariance, missed)
    return draws
