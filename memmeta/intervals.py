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
