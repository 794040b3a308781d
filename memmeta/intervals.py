"""Confidence intervals of a mean."""

import math
import statistics
from collections.abc import Sequence


def half_width(values: Sequence[float]) -> float:
    """Half-width of the mean's 95 % confidence interval, by Student's t.

    Args:
        values: two or more independent values.

    Examples:
        >>> round(half_width([0.5, 0.6, 0.7]), 3)
        0.248
    """
    # SciPy takes half a second to import, which every command would pay.
    from scipy.special import stdtrit

    error = statistics.stdev(values) / math.sqrt(len(values))
    return float(stdtrit(len(values) - 1, 0.975)) * error


def with_half_width(value: float, half_width: float, digits: int = 2) -> str:
    """Format a value with its half-width, to the digits that the half-width supports.

    Args:
        value: the value.
        half_width: half-width of its interval.
        digits: significant digits of the half-width. Digits before the point are always shown.

    Examples:
        >>> with_half_width(0.4, 0.0204)
        '0.400 ± 0.020'
        >>> with_half_width(12150.4, 1906.2)
        '12150 ± 1906'
    """
    largest = max(abs(value), half_width)
    if largest >= _LARGE:
        return f"{value:.3g} ± {half_width:.2g}"
    decimals = 1
    if half_width > 0:
        supported = digits - 1 - _exponent(half_width)
        # A half-width of rounding errors supports no further digits.
        decimals = max(0, min(supported, _MOST_DIGITS - 1 - _exponent(largest)))
    return f"{value:.{decimals}f} ± {half_width:.{decimals}f}"


_LARGE = 1e6
"""Numbers from which on an exponent is shorter."""

_MOST_DIGITS = 5
"""Maximum number of significant digits of a value."""


def _exponent(number: float) -> int:
    """The power of ten of the first digit: 1 for 42, -2 for 0.042."""
    return math.floor(math.log10(number))
