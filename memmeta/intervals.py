"""Confidence intervals of a mean."""

import math
import statistics
from collections.abc import Sequence


def half_width(values: Sequence[float]) -> float:
    """Half of the mean's 95 % confidence interval, by Student's t.

    Args:
        values: two or more, independent of each other.
    """
    # Takes half a second to import, and `memmeta` is imported by every command.
    from scipy.special import stdtrit

    error = statistics.stdev(values) / math.sqrt(len(values))
    return float(stdtrit(len(values) - 1, 0.975)) * error
