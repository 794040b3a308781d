"""What several training seeds say together."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from memmeta.intervals import half_width
from memmeta.metric import Metric


class SeedMean(NamedTuple):
    """A metric over training seeds."""

    value: float
    """Its mean."""
    interval: float | None
    """Half-width of the mean's 95 % t-interval over training seeds; None of a single seed."""

    def text(self, metric: Metric) -> str:
        """`61.2 ± 0.8 %`; of a single seed `61.20%`."""
        if self.interval is None:
            return metric.alone(self.value)
        return metric.text(self.value, self.interval, decimals=1)


def over_seeds(values: Sequence[float]) -> SeedMean:
    """The mean of one value a seed, of which there is at least one."""
    mean = statistics.fmean(values)
    return SeedMean(mean, half_width(values) if len(values) > 1 else None)
