"""How well a surrogate predicts configs it has not seen, and how many would suffice."""

import math
import statistics
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import KFold

from analysis.statistics.surrogate import fit

_FOLDS, _FOLDS_OF_MANY, _MANY = 10, 5, 100
"""Number of folds, and the number from `_MANY` values on: four fifths of many values are nearly as
good as all of them."""

_SHUFFLES = 5
"""Number of different divisions into folds: R² of one study was .33, .08, .19, .63 and .45."""

_LARGEST_GROWTH = 100
"""Largest extrapolation of `size_for`, as a multiple of the number of values."""


@dataclass(frozen=True)
class R2:
    """R² for values that the surrogate has not seen."""

    shuffles: tuple[float, ...]
    """One R² per division into folds."""

    @property
    def low(self) -> float:
        """The lowest. Decisions use it, since a higher one may be due to lucky folds."""
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

    The values are divided into folds several times: ten folds, five from 100 values on, and at
    most half as many folds as values. The kernel is found for each fold without its values. Since
    the values are noisy, even a perfect surrogate stays below 1.

    Args:
        features: features within [0, 1], at least 4 rows: [n, features]. Rows must be distinct,
            since a row would predict its copy.
        values: values of the response, not all equal: [n].
        seed: seed of the folds.
    """
    seeds = np.random.default_rng(seed).integers(2**32, size=_SHUFFLES).tolist()
    return R2(tuple(_out_of_fold_r2(features, values, fold_seed) for fold_seed in seeds))


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
    """Estimate how many values would give a cross-validated R² of `target`.

    Fits 1 - R² = a n^-b to R² of halves and three quarters of the values (two of each) and to the
    mean R² of all, and extrapolates to `target`. With noise, which no number of values removes,
    the estimate is rather too low.

    Args:
        target: an R² above the lower end of `r2`.
        features: features within [0, 1], at least 8 rows: [n, features].
        values: values of the response: [n].
        r2: `cross_validated_r2` of all values.
        seed: seed of the subsets.

    Returns:
        The number of values; None if R² does not increase with n, if 100 n would not suffice, or
        if the noise alone exceeds 1 - `target`.
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
    # In logarithms: a slope close to 0 gives a number too large for a float.
    log_growth = math.log((1 - target) / errors[0]) / slope if slope < 0 else math.inf
    if log_growth > math.log(_LARGEST_GROWTH):
        return None
    return math.ceil(count * math.exp(log_growth))


def _error(r2: float) -> float:
    """1 - R², at most 1: the error of predicting the mean."""
    return 1 - max(r2, 0.0)
