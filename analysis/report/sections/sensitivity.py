"""Sensitivity of accuracy, peak memory and step time to every dimension of the space."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm, Normalize

from analysis.formatting import capitalised
from analysis.records.trials import Sweep, Trial
from analysis.report import style
from analysis.report.page import Block, Figure, Gallery, Heading, InWords, Section, Table
from analysis.report.sections.what_was_run import status_counts
from analysis.statistics.averages import Curve, Map
from analysis.statistics.encoding import Space, loop_distances, params
from analysis.statistics.importance import Importance, importances
from analysis.statistics.region import Region, narrow, trials_inside
from analysis.statistics.responses import Response, responses
from analysis.statistics.sensitivity import MIN_CONFIGS, THRESHOLD, Sensitivity, analyse
from analysis.statistics.sobol import Estimate
from memmeta.system import palette

TITLE = "Sensitivity"


def section(
    sweep: Sweep, region: Region, on_step: Callable[[str], None] = lambda _: None
) -> Section | None:
    """The section; None without trials of stage explore.

    Args:
        sweep: the sweep.
        region: region of the space to analyse; empty for the whole space.
        on_step: called with the name of each response before it is analysed.

    Raises:
        InputError: the region is not within the space.
    """
    space = narrow(sweep.space, region)
    explored = sweep.trials_in("explore")
    if not explored:
        return None
    trials = trials_inside(explored, space, region)
    results = []
    for response in responses(sweep.metric):
        on_step(f"{TITLE}: {response.title}")
        results.append(analyse(trials, space, response))
    if all(result.configs < MIN_CONFIGS for result in results):
        return Section(TITLE, _too_few(results, trials))
    fitted = any(result.r2 is not None for result in results)
    blocks: list[Block] = [_method(space)] if fitted else []
    finding = " ".join(map(_finding, results))
    if region:
        ranges = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in region.items())
        scope = f"Within {ranges} ({len(trials)} of {len(explored)} trials of stage explore)"
        finding = f"{scope}: {finding[0].lower()}{finding[1:]}"
        blocks.append(f"{scope}. The results of this section apply to this region only.")
    for result in results:
        blocks += _response_blocks(result, trials, space)
    return Section(TITLE, finding, blocks)


def _too_few(results: Sequence[Sensitivity], trials: Sequence[Trial]) -> str:
    """One sentence for all responses, if none has enough trials."""
    configs = max(result.configs for result in results)
    statuses = Counter(trial.status for trial in trials)
    number = "1 config" if configs == 1 else f"{configs} configs"
    return (
        f"Too few trials for sensitivity: stage explore has results of {number} and needs at "
        f"least {MIN_CONFIGS} (trials: {status_counts(statuses)}). Run the sweep with more trials."
    )


def _method(space: Space) -> str:
    distances = ", ".join(
        f"{one} {'divided by' if is_quotient else 'times'} {other}"
        for one, other, is_quotient in loop_distances(space)
    )
    inputs = "the dimensions"
    if distances:
        inputs += f" and of how far a loop moves ({distances})"
    return (
        f"A Gaussian process model of the response as a function of {inputs} is fitted to the "
        "trials of stage explore, a space-filling design, with one observation per config. It is "
        "validated on configs that "
        "it has not seen: R² by cross-validation is given as the lowest and the highest of "
        f"several divisions into folds. If the lowest is at least {THRESHOLD}, the Gaussian "
        "process serves as a surrogate for the response. Its Sobol indices are the shares of the "
        "response's variance over the analysed space that each dimension explains alone (first "
        "order), and alone or in interactions (total order). Intervals are 95 % and include the "
        "uncertainty of the surrogate and of sampling it. For peak memory and time, the logarithm "
        "is explained, and averages are geometric."
    )


def _finding(result: Sensitivity) -> str:
    title = capitalised(result.response.title)
    if not result.supported:
        return f"{title}: {result.verdict}."
    strongest = [i for i in result.indices[:3] if i.total.value >= _WORTH_NAMING]
    named = ", ".join(f"{index.name} ({index.total.value:.2f})" for index in strongest)
    if not named:
        return f"{title} does not depend strongly on any dimension."
    return f"{title} depends most on {named}."


_WORTH_NAMING = 0.05
"""Minimum total-order index of a dimension that the finding names."""


def _response_blocks(result: Sensitivity, trials: Sequence[Trial], space: Space) -> list[Block]:
    title = result.response.title
    blocks: list[Block] = [
        Heading(capitalised(title)),
        f"{capitalised(result.verdict)}.{_left_out(result.response, trials)}",
    ]
    if result.r2 is None:
        return blocks
    if result.supported:
        blocks += _dependence(result, trials, space)
    else:
        blocks += [
            "If some trials break down and others do not, a smooth surrogate cannot predict "
            "which; the figures show where they do. To analyse a region of the space without "
            "such trials, use the report's option within.",
            Gallery(
                f"{capitalised(title)} of each trial.",
                list(_effects(result, trials, space).values()),
            ),
        ]
    return [*blocks, _table(result, importances(trials, space, result.response))]


def _dependence(result: Sensitivity, trials: Sequence[Trial], space: Space) -> list[Block]:
    """Indices, maps and main effects: figures of what matters, and a sentence on the rest."""
    title = result.response.title
    matter = [index.name for index in result.indices if index.total.high >= LEAST_SHARE]
    flat: dict[str, Figure] = {}
    overview: list[Figure] = []
    if len(matter) > 1:
        overview.append(_bars(result))
    else:
        flat["the Sobol indices (see the table)"] = _bars(result)
    for surface in result.maps:
        if _is_flat(result, surface):
            flat[f"the map {_map_title(surface)}"] = _map(result, surface, space)
        else:
            overview.append(_map(result, surface, space))
    effects = _effects(result, trials, space)
    flat |= {name: figure for name, figure in effects.items() if name not in matter}
    blocks: list[Block] = []
    if overview:
        caption = (
            f"Dependence of {title} on the dimensions. Maps show its average over all other "
            "dimensions, for the pairs with the strongest interactions and for inner_lr with "
            "inner_steps, all on one colour scale."
        )
        blocks.append(Gallery(caption, overview))
    drawn = [figure for name, figure in effects.items() if name in matter]
    if drawn:
        caption = (
            f"{capitalised(title)} of each trial; the line is the average over all other "
            "dimensions, with its 95 % band."
        )
        blocks.append(Gallery(caption, drawn))
    if flat:
        text = (
            f"Not drawn, because {title} hardly changes: {', '.join(flat)}. A dimension is drawn "
            f"if it may explain {100 * LEAST_SHARE:.0f} % of the variance, with interactions "
            "(upper end of the interval); a map if the average varies by more than its 95 % band, "
            "taken from the main effects."
        )
        blocks.append(InWords(text, list(flat.values())))
    return blocks


LEAST_SHARE = 0.05
"""A dimension is drawn if the upper end of its total-order index reaches this share."""


def _is_flat(result: Sensitivity, surface: Map) -> bool:
    """Whether a map varies by less than the 95 % band of the main effects of its dimensions."""
    scale = np.log if result.response.log else np.asarray
    widths = [
        np.max(scale(curve.high) - scale(curve.low))
        for curve in result.curves
        if curve.name in surface.names
    ]
    return bool(np.ptp(scale(surface.mean)) <= max(widths))


def _map_title(surface: Map) -> str:
    return " × ".join(surface.names)


def _effects(result: Sensitivity, trials: Sequence[Trial], space: Space) -> dict[str, Figure]:
    """The response against each dimension, with its main effect where there is one."""
    curves = {curve.name: curve for curve in result.curves}
    return {
        name: _effect(result, name, space, points, curves.get(name))
        for name in space
        if (points := _points(result.response, name, space, trials))
    }


def _left_out(response: Response, trials: Sequence[Trial]) -> str:
    without = Counter(trial.status for trial in trials if response.value_of(trial) is None)
    if not without:
        return ""
    return (
        f" Trials of explore without a {response.title}: {status_counts(without)}. The results "
        "apply only where there is one."
    )


def _points(
    response: Response, name: str, space: Space, trials: Sequence[Trial]
) -> list[tuple[Any, float]]:
    """A dimension's value and the response, for each trial that has both."""
    return [
        (values[name], measured)
        for trial in trials
        if (measured := response.value_of(trial)) is not None
        and name in (values := params(trial, space))
    ]


def _table(result: Sensitivity, optuna: Sequence[Importance]) -> Table:
    indices = {index.name: index for index in result.indices}
    order = [index.name for index in result.indices] or list(result.names)
    rows = []
    for name in order:
        index = indices.get(name)
        sobol = [_estimate(index.first), _estimate(index.total)] if index else []
        rows.append([name, *sobol, *(_importance(method, name) for method in optuna)])
    methods = "; ".join(f"{method.method}: {method.question}" for method in optuna)
    sobol_columns = ["first order", "total order"] if indices else []
    return Table(
        f"Importance for {result.response.title}",
        ["dimension", *sobol_columns, *(method.method for method in optuna)],
        rows,
        "The methods answer different questions. Sobol indices: shares of the variance over the "
        f"analysed space. {methods}. Optuna's importances have no intervals.",
    )


def _estimate(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _importance(importance: Importance, name: str) -> str:
    value = importance.values[name]
    return "–" if value is None else f"{value:.2f}"


def _bars(result: Sensitivity) -> Figure:
    positions = np.arange(len(result.indices))
    with style.panel() as (drawing, axes):
        for order, offset, colour in (("total", -0.19, palette.BLUE), ("first", 0.19, palette.SKY)):
            estimates: list[Estimate] = [getattr(index, order) for index in result.indices]
            values = np.array([estimate.value for estimate in estimates])
            errors = [
                values - [estimate.low for estimate in estimates],
                [estimate.high for estimate in estimates] - values,
            ]
            axes.barh(
                positions + offset,
                values,
                0.36,
                xerr=errors,
                color=colour,
                label=f"{order} order",
                error_kw={"ecolor": palette.GREY, "capsize": 2, "linewidth": 1},
            )
        axes.set_yticks(positions, [index.name for index in result.indices])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="share of variance", xlim=(0, 1))
        axes.legend(loc="lower right")
    data = [
        {"dimension": index.name, "order": order, **vars(getattr(index, order))}
        for index in result.indices
        for order in ("first", "total")
    ]
    alt = f"Sobol indices of {result.response.title} for {len(result.indices)} dimensions"
    title = f"Sobol indices of {result.response.title}"
    return Figure(f"sobol_{result.response.name}", title, alt, drawing, data)


def _effect(
    result: Sensitivity,
    name: str,
    space: Space,
    points: Sequence[tuple[Any, float]],
    curve: Curve | None,
) -> Figure:
    response = result.response
    data: list[dict[str, object]] = [
        {"of": "trial", name: x, response.name: value} for x, value in points
    ]
    with style.panel() as (drawing, axes):
        coordinate = style.dimension_axis(axes, "x", space[name])
        axes.scatter(
            [coordinate(x) for x, _ in points],
            [v for _, v in points],
            s=12,
            color=palette.BLUE,
            alpha=0.5,
        )
        if curve:
            x_line = [coordinate(x) for x in curve.x]
            axes.plot(x_line, curve.mean, color=palette.RED)
            axes.fill_between(
                x_line, curve.low, curve.high, color=palette.RED, alpha=0.15, linewidth=0
            )
            data += [
                {"of": "average", name: x, response.name: mean, "low": low, "high": high}
                for x, mean, low, high in zip(
                    curve.x, curve.mean, curve.low, curve.high, strict=True
                )
            ]
        axes.set_xlabel(name)
        style.response_axis(axes, "y", response, log=response.log)
    alt = f"{response.title} against {name}, {len(points)} trials"
    return Figure(f"effect_{response.name}_{name}", name, alt, drawing, data)


def _map(result: Sensitivity, surface: Map, space: Space) -> Figure:
    response = result.response
    x_name, y_name = surface.names
    with style.panel() as (drawing, axes):
        x_coordinates = list(map(style.dimension_axis(axes, "x", space[x_name]), surface.x))
        y_coordinates = list(map(style.dimension_axis(axes, "y", space[y_name]), surface.y))
        mesh = axes.pcolormesh(
            x_coordinates,
            y_coordinates,
            surface.mean,
            cmap=style.MAP,
            norm=_colours(result),
            shading="gouraud",
            rasterized=True,  # vector triangles would take megabytes
        )
        axes.grid(visible=False)
        axes.set(xlabel=x_name, ylabel=y_name)
        bar = drawing.colorbar(mesh, label=response.label)
        if response.log:
            style.log_axis(bar.ax, "y", *bar.ax.get_ylim())
    data = [
        {x_name: x, y_name: y, response.name: value}
        for y, row in zip(surface.y, surface.mean, strict=True)
        for x, value in zip(surface.x, row, strict=True)
    ]
    title = _map_title(surface)
    alt = f"Average {response.title} over {title}"
    return Figure(f"map_{response.name}_{x_name}_{y_name}", title, alt, drawing, data)


def _colours(result: Sensitivity) -> Normalize:
    """One colour scale for all maps of a response, so that weak effects look weak."""
    means = [value for curve in result.curves for value in curve.mean]
    means += [value for surface in result.maps for row in surface.mean for value in row]
    return (LogNorm if result.response.log else Normalize)(min(means), max(means))
