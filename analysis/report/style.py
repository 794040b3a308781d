"""How figures look: one place for sizes, colours and axes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from sweeps.engine.study.dimension import described
from sweeps.engine.study.outcome import Stage

# Okabe and Ito's colours, distinct to colour-blind readers.
BLUE, SKY, GREEN, ORANGE, RED, PURPLE = (
    "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#6E7781"
STAGES: Mapping[Stage, str] = {"explore": BLUE, "search": ORANGE}
"""The colours of stages whose trials are told apart."""
SERIES = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
"""Colours of what is told apart otherwise."""
MAP = "cividis"
"""Colours of a surface: even in lightness, for colour-blind readers too."""

SMALL, WIDE = (4.0, 3.0), (5.4, 3.5)
"""Inches. At the width of a phone the text of both can be read."""

_SETTINGS = {
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
    """An empty figure with one pair of axes, and the style while it is drawn on."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, figure.subplots()


def log_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """Make an axis logarithmic, with ticks that are written as plain numbers.

    Args:
        axes: to be changed.
        which: `x` or `y`.
        low: the least value on it, above 0.
        high: the largest.
    """
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    decades = high / low
    # A few decades have room for 1, 2, 5; less than one for more of them.
    subs = (1.0,) if decades > 300 else (1.0, 3.0) if decades > 30 else (1.0, 2.0, 5.0)
    if decades < 4:
        subs = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def linear_axis(axes: Axes, which: str, whole: bool = False) -> None:
    """Few round ticks; `whole`: at integers only."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(nbins=6, integer=whole))


def dimension_axis(axes: Axes, which: str, dimension: BaseDistribution) -> Callable[[Any], float]:
    """Make an axis that of a dimension of a space: logarithmic where it is, or with choices.

    Returns:
        The place of a value on it.
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
