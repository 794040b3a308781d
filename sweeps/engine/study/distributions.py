"""Short names for Optuna's distributions, for the space of a study.

Unlike in NumPy and Ray Tune, the upper end of an integer range is included.
"""

from collections.abc import Iterable
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution


def uniform(low: float, high: float, *, step: float | None = None) -> FloatDistribution:
    """Floats from `low` to `high`, on a linear scale.

    Args:
        low: lower end, included.
        high: upper end, included.
        step: only `low`, `low + step`, ...; None: all floats.

    Raises:
        ValueError: `low` is above `high`, or `step` is not above 0.

    Examples:
        >>> from sweeps import uniform
        >>> uniform(0, 1, step=0.25)
        FloatDistribution(high=1.0, log=False, low=0.0, step=0.25)
    """
    return FloatDistribution(low, high, step=step)


def loguniform(low: float, high: float) -> FloatDistribution:
    """Floats from `low` to `high`, on a log scale.

    Args:
        low: lower end, above 0, included.
        high: upper end, included.

    Raises:
        ValueError: `low` is above `high` or not above 0.

    Examples:
        >>> from sweeps import loguniform
        >>> loguniform(0.03, 3)
        FloatDistribution(high=3.0, log=True, low=0.03, step=None)
    """
    return FloatDistribution(low, high, log=True)


def integers(low: int, high: int, *, step: int = 1) -> IntDistribution:
    """Integers from `low` to `high`, on a linear scale.

    Args:
        low: lower end, included.
        high: upper end, included.
        step: distance between two values.

    Raises:
        ValueError: `low` is above `high`, or `step` is not above 0.

    Examples:
        >>> from sweeps import integers
        >>> integers(4, 16, step=4)
        IntDistribution(high=16, log=False, low=4, step=4)
    """
    return IntDistribution(low, high, step=step)


def logintegers(low: int, high: int) -> IntDistribution:
    """Integers from `low` to `high`, on a log scale.

    Args:
        low: lower end, at least 1, included.
        high: upper end, included.

    Raises:
        ValueError: `low` is above `high` or below 1.

    Examples:
        >>> from sweeps import logintegers
        >>> logintegers(1, 40)
        IntDistribution(high=40, log=True, low=1, step=1)
    """
    return IntDistribution(low, high, log=True)


def choice(values: Iterable[Any]) -> CategoricalDistribution:
    """One of these values.

    Raises:
        ValueError: there are no values.

    Examples:
        >>> from sweeps import choice
        >>> choice(["batch", "group"])
        CategoricalDistribution(choices=('batch', 'group'))
    """
    return CategoricalDistribution(tuple(values))
