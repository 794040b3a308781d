"""The look of figures: sizes, colours and axes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from memmeta.system.palette import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from sweeps.engine.study.dimension import described
from sweeps.engine.study.outcome import Stage

STAGES: Mapping[Stage, str] = {"explore": BLUE, "search": ORANGE}
"""Colours of the stages that figures distinguish."""
SERIES = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
"""Colours of all other series, in this order."""
MAP = "cividis"
"""Colour map of surfaces: perceptually uniform, also for colour-blind readers."""

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
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    ratio = high / low
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
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def linear_axis(axes: Axes, which: str, whole: bool = False) -> None:
    """Set a few round ticks on an axis.

    Args:
        axes: the axes to change.
        which: `x` or `y`.
        whole: whether ticks are at integers only.
    """
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(nbins=6, integer=whole))


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
