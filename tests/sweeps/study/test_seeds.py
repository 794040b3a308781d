import pytest

from sweeps.engine.study.seeds import over_seeds


def test_the_interval_is_a_t_interval() -> None:
    # Quantiles from a printed table: 12.7062 for one degree of freedom, 4.3027 for two.
    assert over_seeds([0.5, 0.7]) == pytest.approx((0.6, 12.7062 * 0.1), rel=1e-4)
    assert over_seeds([0.5, 0.6, 0.7]) == pytest.approx((0.6, 4.3027 * 0.1 / 3**0.5), rel=1e-4)


def test_a_single_seed_has_no_interval() -> None:
    assert over_seeds([0.5]) == (0.5, None)
