"""Statistics over training seeds."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from memmeta.intervals import half_width
from memmeta.metric import Metric


class SeedMean(NamedTuple):
    """The mean of a metric over training seeds."""

    value: float
    """The mean."""
    interval: float | None
    """Half-width of the 95 % t-interval of the mean over training seeds; None for one seed."""

    def text(self, metric: Metric) -> str:
        """The mean as text: `61.2 ± 0.8 %`, or `61.2 %` for one seed."""
        return metric.rounded(self.value, self.interval)


def over_seeds(values: Sequence[float]) -> SeedMean:
    """Average a metric over training seeds.

    Args:
        values: one value for each seed; at least one.
    """
    mean = statistics.fmean(values)
    return SeedMean(mean, half_width(values) if len(values) > 1 else None)
