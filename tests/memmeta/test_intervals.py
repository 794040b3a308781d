import numpy as np
import pytest

from memmeta.intervals import half_width


@pytest.mark.parametrize(
    ("values", "quantile"),
    [([1.0, 3.0], 12.7062), ([1.0, 2.0, 3.0], 4.3027), ([0.0, 2.0] * 50, 1.9842)],
)
def test_the_quantile_is_that_of_a_printed_table(values, quantile):
    error = np.std(values, ddof=1) / len(values) ** 0.5
    assert half_width(values) == pytest.approx(quantile * error, rel=1e-4)


@pytest.mark.parametrize("count", [2, 3, 5, 30])
def test_nineteen_of_twenty_intervals_hold_the_mean(count):
    samples = np.random.default_rng(0).normal(3.0, 2.0, (4000, count))
    held = [abs(sample.mean() - 3.0) <= half_width(sample.tolist()) for sample in samples]
    # Four standard errors of a share of 4000.
    assert np.mean(held) == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 4000) ** 0.5)
