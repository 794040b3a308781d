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
    if max(abs(value), half_width) >= _LARGE:
        return f"{value:.3g} ± {half_width:.2g}"
    decimals = 1
    if half_width > 0:
        decimals = max(0, digits - 1 - math.floor(math.log10(half_width)))
    return f"{value:.{decimals}f} ± {half_width:.{decimals}f}"


_LARGE = 1e6
"""Numbers from which on an exponent is shorter."""
