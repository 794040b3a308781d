"""Sensitivity of accuracy, peak memory and step time to every dimension of the space."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm, Normalize

from analysis.records.trials import Sweep, Trial
from analysis.report import style
from analysis.report.page import Block, Figure, Gallery, Heading, Section, Table, sentence
from analysis.report.sections.what_was_run import counted
from analysis.statistics.encoding import Space, distances, params
from analysis.statistics.importance import Importance, importances
from analysis.statistics.part import Within, inside, narrowed
from analysis.statistics.responses import Response, responses
from analysis.statistics.sensitivity import (
    THRESHOLD,
    Curve,
    Estimate,
    Map,
    Sensitivity,
    analyse,
)

TITLE = "Sensitivity"


def section(
    sweep: Sweep, within: Within, on_step: Callable[[str], None] = lambda _: None
) -> Section | None:
    """The section, for a part of the space; None without trials of stage explore.

    Args:
        sweep: the sweep.
        within: the part; empty: all.
        on_step: called with the name of each response before it is analysed.

    Raises:
        InputError: the part is none of the space.
    """
    space = narrowed(sweep.space, within)
    explored = sweep.of("explore")
    if not explored:
        return None
    trials = inside(explored, space, within)
    found = []
    for response in responses(sweep.metric):
        on_step(f"{TITLE}: {response.title}")
        found.append(analyse(trials, space, response))
    fitted = any(sensitivity.r2 is not None for sensitivity in found)
    blocks: list[Block] = [_method(space)] if fitted else []
    finding = " ".join(map(_finding, found))
    if within:
        ranges = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in within.items())
        part = f"Within {ranges} ({len(trials)} of {len(explored)} trials of stage explore)"
        finding = f"{part}: {finding[0].lower()}{finding[1:]}"
        blocks.append(f"{part}. What is said here is of that part of the space alone.")
    for sensitivity in found:
        blocks += _of_response(sensitivity, trials, space)
    return Section(TITLE, finding, blocks)


def _method(space: Space) -> str:
    moved = ", ".join(
        f"{one} {'over' if quotient else 'times'} {other}"
        for one, other, quotient in distances(space)
    )
    also = f", and of how far a loop moves ({moved})," if moved else ""
    return (
        f"A Gaussian process of the dimensions{also} is fitted to the trials of stage explore, a "
        "space-filling design, one observation a config, and judged by how well it predicts "
        "configs that it has not seen: R² by cross-validation, the lowest and the highest of "
        f"several ways to fold. If even the lowest is {THRESHOLD} or more, the process stands for "
        "the response: its Sobol indices say which share of "
        "the response's variance over the space looked at each dimension explains by itself "
        "(first order) and by itself and together with others (total order). Intervals are 95 % "
        "and hold both the doubt about the surrogate and that of sampling it. Of peak memory and "
        "time it is the logarithm that is explained, and averages are geometric."
    )


def _finding(found: Sensitivity) -> str:
    title = found.response.title
    start = sentence(title)
    if not found.supported:
        return f"{start}: {found.verdict}."
    strongest = [i for i in found.indices[:3] if i.total.value >= _WORTH_NAMING]
    named = ", ".join(f"{index.name} ({index.total.value:.2f})" for index in strongest)
    return f"{start} depends most on {named or 'nothing in particular'}."


_WORTH_NAMING = 0.05
"""Total-order indices below it are not among the strongest."""


def _of_response(found: Sensitivity, trials: Sequence[Trial], space: Space) -> list[Block]:
    title = found.response.title
    start = sentence(title)
    blocks: list[Block] = [
        Heading(start),
        f"{sentence(found.verdict)}.{_left_out(found.response, trials)}",
    ]
    if found.r2 is None:
        return blocks
    if not found.supported:
        blocks.append(
            "Where some trials break down and others do not, no smooth surrogate predicts which: "
            "the figures show where. A part of the space without them may be another matter, and "
            "report --within asks of it."
        )
    if found.supported:
        caption = (
            f"What {title} depends on. Maps show its average over all other dimensions, for the "
            "pairs with the strongest interaction and for inner_lr with inner_steps, in one scale "
            "of colours."
        )
        figures = [_bars(found), *(_map(found, of, space) for of in found.maps)]
        blocks.append(Gallery(caption, figures))
    curves = {curve.name: curve for curve in found.curves}
    effects = [
        _effect(found, name, space, points, curves.get(name))
        for name in space
        if (points := _points(found.response, name, space, trials))
    ]
    caption = f"{start} of each trial"
    if found.supported:
        caption += "; the line is its average over all other dimensions, with its 95 % band"
    optuna = importances(trials, space, found.response)
    return [*blocks, Gallery(f"{caption}.", effects), _table(found, optuna)]


def _left_out(response: Response, trials: Sequence[Trial]) -> str:
    without = Counter(trial.status for trial in trials if response.of(trial) is None)
    if not without:
        return ""
    return (
        f" Trials of explore without a {response.title}: {counted(without)}. What is said holds "
        "where there is one."
    )


def _points(
    response: Response, name: str, space: Space, trials: Sequence[Trial]
) -> list[tuple[Any, float]]:
    """The dimension's value and the response of each trial that has both."""
    return [
        (own[name], value)
        for trial in trials
        if (value := response.of(trial)) is not None and name in (own := params(trial, space))
    ]


def _table(found: Sensitivity, optuna: Sequence[Importance]) -> Table:
    indices = {index.name: index for index in found.indices}
    order = [index.name for index in found.indices] or list(found.names)
    rows = []
    for name in order:
        index = indices.get(name)
        sobol = [_estimate(index.first), _estimate(index.total)] if index else []
        rows.append([name, *sobol, *(_importance(of, name) for of in optuna)])
    methods = "; ".join(f"{of.method}: {of.question}" for of in optuna)
    sobol_columns = ["first order", "total order"] if indices else []
    return Table(
        f"Importance for {found.response.title}, by several methods that answer different "
        f"questions. Sobol indices: shares of the variance over the space looked at. {methods}. "
        "Optuna's have no intervals.",
        ["dimension", *sobol_columns, *(of.method for of in optuna)],
        rows,
    )


def _estimate(of: Estimate) -> str:
    return f"{of.value:.2f} ({of.low:.2f} to {of.high:.2f})"


def _importance(of: Importance, name: str) -> str:
    value = of.values[name]
    return "–" if value is None else f"{value:.2f}"


def _bars(found: Sensitivity) -> Figure:
    places = np.arange(len(found.indices))
    with style.panel() as (drawing, axes):
        for order, offset, colour in (("total", -0.19, style.BLUE), ("first", 0.19, style.SKY)):
            of = [getattr(index, order) for index in found.indices]
            values = np.array([estimate.value for estimate in of])
            errors = [
                values - [estimate.low for estimate in of],
                [estimate.high for estimate in of] - values,
            ]
            axes.barh(
                places + offset,
                values,
                0.36,
                xerr=errors,
                color=colour,
                label=f"{order} order",
                error_kw={"ecolor": style.GREY, "capsize": 2, "linewidth": 1},
            )
        axes.set_yticks(places, [index.name for index in found.indices])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="share of variance", xlim=(0, 1))
        axes.legend(loc="lower right")
    data = [
        {"dimension": index.name, "order": order, **vars(getattr(index, order))}
        for index in found.indices
        for order in ("first", "total")
    ]
    alt = f"Sobol indices of {found.response.title} for {len(found.indices)} dimensions"
    title = f"What {found.response.title} depends on"
    return Figure(f"sobol_{found.response.name}", title, alt, drawing, data)


def _effect(
    found: Sensitivity,
    name: str,
    space: Space,
    points: Sequence[tuple[Any, float]],
    curve: Curve | None,
) -> Figure:
    response = found.response
    data: list[dict[str, object]] = [
        {"of": "trial", name: x, response.name: value} for x, value in points
    ]
    with style.panel() as (drawing, axes):
        places = style.dimension_axis(axes, "x", space[name])
        axes.scatter(
            [places(x) for x, _ in points],
            [v for _, v in points],
            s=12,
            color=style.BLUE,
            alpha=0.5,
        )
        if curve:
            at = [places(x) for x in curve.x]
            axes.plot(at, curve.mean, color=style.RED)
            axes.fill_between(at, curve.low, curve.high, color=style.RED, alpha=0.15, linewidth=0)
            data += [
                {"of": "average", name: x, response.name: mean, "low": low, "high": high}
                for x, mean, low, high in zip(
                    curve.x, curve.mean, curve.low, curve.high, strict=True
                )
            ]
        if response.log:
            values = [value for _, value in points]
            style.log_axis(axes, "y", min(values), max(values))
        axes.set(xlabel=name, ylabel=response.label)
    alt = f"{response.title} against {name}, {len(points)} trials"
    return Figure(f"effect_{response.name}_{name}", name, alt, drawing, data)


def _map(found: Sensitivity, of: Map, space: Space) -> Figure:
    response = found.response
    x_name, y_name = of.names
    with style.panel() as (drawing, axes):
        x_places = list(map(style.dimension_axis(axes, "x", space[x_name]), of.x))
        y_places = list(map(style.dimension_axis(axes, "y", space[y_name]), of.y))
        surface = axes.pcolormesh(
            x_places,
            y_places,
            of.mean,
            cmap=style.MAP,
            norm=_colours(found),
            shading="gouraud",
            rasterized=True,  # as triangles it would be megabytes
        )
        axes.grid(visible=False)
        axes.set(xlabel=x_name, ylabel=y_name)
        bar = drawing.colorbar(surface, label=response.label)
        if response.log:
            style.log_axis(bar.ax, "y", *bar.ax.get_ylim())
    data = [
        {x_name: x, y_name: y, response.name: value}
        for y, row in zip(of.y, of.mean, strict=True)
        for x, value in zip(of.x, row, strict=True)
    ]
    title = f"{x_name} × {y_name}"
    alt = f"Average {response.title} over {title}"
    return Figure(f"map_{response.name}_{x_name}_{y_name}", title, alt, drawing, data)


def _colours(found: Sensitivity) -> Normalize:
    """One scale for all maps of a response: what hardly matters hardly shows."""
    means = [value for curve in found.curves for value in curve.mean]
    means += [value for of in found.maps for row in of.mean for value in row]
    return (LogNorm if found.response.log else Normalize)(min(means), max(means))
