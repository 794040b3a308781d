import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import qmc
from threadpoolctl import threadpool_limits

from analysis.statistics.cross_validation import cross_validated_r2, size_for
from analysis.statistics.posterior import Draws, likely_kernels
from analysis.statistics.surrogate import fit


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


def design(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    points: np.ndarray = qmc.Sobol(dimensions, rng=seed).random(count)
    return points


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count)


def wavy(points: np.ndarray) -> np.ndarray:
    values: np.ndarray = 50 + 10 * np.sin(4 * points[:, 0]) + 8 * points[:, 1]
    return values


def test_the_mean_is_closer_to_the_response_than_noisy_values() -> None:
    points = design(64, 3)
    surrogate = fit(points, wavy(points) + 3 * noise(64))
    fresh = design(256, 3, seed=1)
    for at in (points, fresh):
        assert np.sqrt(np.mean((surrogate.mean(at) - wavy(at)) ** 2)) < 3 / 2


def test_r2_is_the_share_that_is_not_noise() -> None:
    points = design(64, 3)
    signal = wavy(points)
    assert cross_validated_r2(points, signal).low > 0.99
    # Half of the variance is noise, and the surrogate is imperfect.
    half = cross_validated_r2(points, signal + signal.std() * noise(64, seed=3))
    assert 0.35 < half.low < half.high < 0.55
    assert cross_validated_r2(points, noise(64)).high < 0.1


def test_r2_is_computed_for_several_shuffles() -> None:
    points = design(32, 3)
    r2 = cross_validated_r2(points, wavy(points) + 8 * noise(32))
    assert len(set(r2.shuffles)) == 5
    assert r2.low == min(r2.shuffles) < r2.mean < r2.high == max(r2.shuffles)


def test_predictions_use_all_values() -> None:
    points, fresh = design(512, 3), design(256, 3, seed=1)
    values = wavy(points) + 10 * noise(512)
    some, everything = (
        np.sqrt(np.mean((fit(points[:n], values[:n]).mean(fresh) - wavy(fresh)) ** 2))
        for n in (128, 512)
    )
    assert everything < 0.7 * some


def test_draws_have_the_moments_of_the_posterior() -> None:
    points = design(16, 2)
    surrogate = fit(points, wavy(points) + noise(16))
    at = design(8, 2, seed=1)
    draws = Draws(surrogate, [surrogate.noisy.kernel_] * 200)(at)
    _, covariance = surrogate.latent.predict(at, return_cov=True)
    deviation = np.sqrt(np.diag(covariance))
    errors = (draws.mean(axis=1) - surrogate.mean(at)) / surrogate.scale / deviation
    assert np.abs(errors).max() < 5 / np.sqrt(draws.shape[1])
    assert draws.std(axis=1) / surrogate.scale == pytest.approx(deviation, rel=0.12)
    correlations = covariance / np.outer(deviation, deviation)
    assert np.abs(np.corrcoef(draws) - correlations).max() < 0.12


def test_draws_of_one_seed_are_the_same_functions_wherever_they_are_evaluated() -> None:
    points = design(16, 2)
    surrogate = fit(points, wavy(points))
    kernels = likely_kernels(surrogate)[:3]
    together = Draws(surrogate, kernels, seed=5)(points)
    assert Draws(surrogate, kernels, seed=5)(points[4:9]) == pytest.approx(together[4:9])


@pytest.mark.thorough
def test_kernels_are_drawn_from_their_posterior() -> None:
    points = design(8, 1)
    surrogate = fit(points, wavy(np.hstack([points, points])) + 2 * noise(8))
    sampled = np.array(
        [kernel.theta for seed in range(12) for kernel in likely_kernels(surrogate, seed)]
    )
    # Brute force: the likelihood on a grid of amplitude, length and noise.
    axes = [
        np.linspace(low, high, 14, endpoint=False) + (high - low) / 28
        for low, high in surrogate.noisy.kernel.bounds
    ]
    grid = np.array(list(itertools.product(*axes)))
    heights = np.array(
        [surrogate.noisy.log_marginal_likelihood(theta, clone_kernel=False) for theta in grid]
    )
    weights = np.exp(heights - heights.max())
    weights /= weights.sum()
    mean = weights @ grid
    deviation = np.sqrt(weights @ (grid - mean) ** 2)
    assert np.abs((sampled.mean(axis=0) - mean) / deviation).max() < 0.25
    assert sampled.std(axis=0) / deviation == pytest.approx(1, abs=0.25)


@pytest.mark.thorough
def test_the_required_size_grows_with_the_target() -> None:
    points = design(32, 4)
    values = np.sin(6 * points[:, 0]) * np.cos(5 * points[:, 1]) + points[:, 2]
    r2 = cross_validated_r2(points, values)
    needed = [size_for(r2.mean + more, points, values, r2) for more in (0.05, 0.1)]
    assert needed[0] is not None
    assert needed[1] is not None
    assert 32 < needed[0] < needed[1]


def test_no_size_suffices_if_r2_does_not_increase() -> None:
    points, values = design(32, 3), noise(32)
    assert size_for(0.7, points, values, cross_validated_r2(points, values)) is None
