"""The look of figures: sizes, colours and axes."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from analysis.statistics.responses import Response
from memmeta.system.palette import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from sweeps.engine.study.dimension import described
from sweeps.engine.study.outcome import Stage

STAGES: Mapping[Stage, str] = {"explore": BLUE, "search": ORANGE}
"""Colours of the stages that figures distinguish."""
SERIES = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
"""Colours of all other series, in this order."""
MAP = "cividis"
"""Colour map of surfaces: perceptually uniform, also for colour-blind readers."""

LEAST_POINTS = 5.0
"""Least span of an axis for a metric in per cent, in percentage points."""
LEAST_RATIO = 1.5
"""Least ratio of the ends of an axis for other responses."""

SMALL, WIDE = (4.0, 3.0), (5.4, 3.5)
"""Figure sizes in inches, with text that is legible at the width of a phone."""

_SETTINGS: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "grid.color": "#E6E9EC",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "#1B1F24",
    "ytick.labelcolor": "#1B1F24",
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@contextmanager
def panel(size: tuple[float, float] = SMALL) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure with one pair of axes; the style applies within the context."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, figure.subplots()


def log_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """Make an axis logarithmic, with plain numbers as tick labels.

    Args:
        axes: the axes to change.
        which: `x` or `y`.
        low: smallest value on the axis, above 0.
        high: largest value on the axis.
    """
    axis = _axis(axes, which)
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ratio = high / low
    if ratio < 2:
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        return
    # The fewer decades, the more ticks fit into each.
    subs: Sequence[float]
    if ratio > 300:
        subs = (1.0,)
    elif ratio > 30:
        subs = (1.0, 3.0)
    elif ratio >= 4:
        subs = (1.0, 2.0, 5.0)
    else:
        subs = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))


def linear_axis(axes: Axes, which: str, whole: bool = False) -> None:
    """Set a few round ticks on an axis.

    Args:
        axes: the axes to change.
        which: `x` or `y`.
        whole: whether ticks are at integers only.
    """
    _axis(axes, which).set_major_locator(MaxNLocator(nbins=6, integer=whole))


def response_axis(axes: Axes, which: str, response: Response, log: bool = False) -> None:
    """Label an axis with a response, and widen it so that small differences look small.

    The axis covers at least `LEAST_POINTS` for a metric in per cent, and otherwise at least a
    ratio of `LEAST_RATIO`. To be called after drawing.

    Args:
        axes: the axes to change.
        which: `x` or `y`.
        response: the response on the axis.
        log: whether the axis is logarithmic.
    """
    if log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    if log:
        factor = math.sqrt(max(1.0, LEAST_RATIO * low / high))
        low, high = low / factor, high * factor
        log_axis(axes, which, low, high)
    else:
        in_per_cent = response.metric is not None and response.metric.unit
        least = LEAST_POINTS if in_per_cent else (1 - 1 / LEAST_RATIO) * max(abs(low), abs(high))
        margin = max(0.0, least - (high - low)) / 2
        low, high = low - margin, high + margin
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(response.label)


def dodged(values: Sequence[float], series: int, of: int) -> list[float]:
    """Shift a series sideways, so that points of several series at one value do not overlap.

    Args:
        values: the values of all points on the axis, increasing.
        series: number of the series, from 0.
        of: number of series.

    Returns:
        The shifted values. All series together take up a third of the smallest gap.
    """
    gaps = [b - a for a, b in itertools.pairwise(values)]
    shift = (series - (of - 1) / 2) / of * min(gaps, default=1.0) / 3
    return [value + shift for value in values]


def _axis(axes: Axes, which: str) -> Axis:
    return axes.xaxis if which == "x" else axes.yaxis


def dimension_axis(axes: Axes, which: str, dimension: BaseDistribution) -> Callable[[Any], float]:
    """Scale an axis for a dimension of the space: logarithmic, linear or with choices.

    Args:
        axes: the axes to change.
        which: `x` or `y`.
        dimension: the dimension.

    Returns:
        A function from a value of the dimension to its coordinate on the axis.
    """
    if not isinstance(dimension, FloatDistribution | IntDistribution):
        choices = list(described(dimension))
        set_ticks = axes.set_xticks if which == "x" else axes.set_yticks
        set_ticks(range(len(choices)), [str(choice) for choice in choices])
        return lambda value: float(choices.index(value))
    if dimension.log:
        log_axis(axes, which, dimension.low, dimension.high)
    else:
        linear_axis(axes, which, whole=isinstance(dimension, IntDistribution))
    return float
