"""The search: best result by trials and by hours, compared with random search."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from optuna.distributions import FloatDistribution, IntDistribution

from analysis.records.trials import RANKED, Sweep
from analysis.report import style
from analysis.report.page import Block, Figure, Gallery, InWords, Section
from analysis.report.sections.what_was_run import hours_unit
from analysis.statistics.responses import quality
from analysis.statistics.search_curves import (
    Expected,
    Step,
    best_so_far,
    boundary_warnings,
    expected_best,
    explore_values,
)
from memmeta.system import palette
from sweeps.engine.study.outcome import FINAL

TITLE = "Search"


def section(sweep: Sweep) -> Section | None:
    """The section; None without trials of explore and search."""
    if not sweep.trials_in(*RANKED):
        return None
    steps = best_so_far(sweep)
    if not sweep.ranking:
        return Section(TITLE, "No trial of explore or search is complete.")
    random = expected_best(explore_values(sweep), sweep.metric)
    figures = [_by_trials(sweep, steps, random)]
    if steps[-1].hours:
        figures.append(_by_hours(sweep, steps, random))
    return Section(
        TITLE, _finding(sweep, steps, random), [_curves(steps, random, figures), *_warnings(sweep)]
    )


def _curves(steps: Sequence[Step], random: Sequence[Expected], figures: Sequence[Figure]) -> Block:
    """The figures, or a sentence if the best result never improved."""
    results = {step.best for step in steps if step.best is not None}
    if len(results) == 1:
        text = "The first complete trial was not improved upon, so no curves are drawn."
        return InWords(text, figures)
    return Gallery(_CAPTION + (_RANDOM_CAPTION if random else ""), figures)


_CAPTION = "Best validation result so far, with one training seed: explore first, then search."
_RANDOM_CAPTION = (
    " For comparison, a random search over the same space: the expected best of n trials, "
    "estimated from subsets of the trials of explore. The band shows the 10 % and 90 % quantiles "
    "for up to half of these trials; larger subsets are too similar to each other. The curve ends "
    "with the number of explore trials, beyond which it cannot be estimated."
)


def _finding(sweep: Sweep, steps: Sequence[Step], random: Sequence[Expected]) -> str:
    metric = sweep.metric
    best = sweep.ranking[0]
    assert best.value is not None
    chosen = "The only trial" if len(steps) == 1 else f"The best of {len(steps)} trials"
    finding = f"{chosen}, {best.run_name}, has {metric.rounded(best.value)}"
    proposed = [trial for trial in sweep.ranking if trial.stage == "search"]
    tries = len(steps) - len(random)
    if proposed and 0 < tries <= len(random):
        assert proposed[0].value is not None
        trials = "1 trial" if tries == 1 else f"{tries} trials"
        finding += (
            f". The optimiser's {trials} reached {metric.rounded(proposed[0].value)}; {trials} "
            f"chosen at random would be expected to reach {metric.rounded(random[tries - 1].mean)}"
        )
    warnings = boundary_warnings(sweep)
    if warnings:
        count = "1 dimension" if len(warnings) == 1 else f"{len(warnings)} dimensions"
        finding += f". The best config lies at a boundary of the space in {count}"
    return finding + "."


def _warnings(sweep: Sweep) -> list[str]:
    warnings = boundary_warnings(sweep)
    if not warnings:
        has_ranges = any(
            isinstance(dimension, FloatDistribution | IntDistribution)
            for dimension in sweep.space.values()
        )
        text = "The best config is not near any boundary of the space that could be widened."
        return [text] if has_ranges else []
    return [f"Boundary: in the best config, {warning}." for warning in warnings]


def _by_trials(sweep: Sweep, steps: Sequence[Step], random: Sequence[Expected]) -> Figure:
    drawing, data = _drawing(
        sweep, steps, random, "trials", lambda step: step.trials, lambda e: e.trials
    )
    alt = f"Best result so far against the number of trials{_with_random(random)}"
    return Figure("best_by_trials", "Best so far, by trials", alt, drawing, data)


def _by_hours(sweep: Sweep, steps: Sequence[Step], random: Sequence[Expected]) -> Figure:
    unit = hours_unit(sweep.trials_in(*RANKED))
    finished = [trial for trial in sweep.trials_in("explore") if trial.status in FINAL]
    hours = [trial.device_hours or 0.0 for trial in finished]
    mean = sum(hours) / len(hours) if hours else 0.0
    drawing, data = _drawing(
        sweep, steps, random, unit, lambda step: step.hours or 0.0, lambda e: mean * e.trials
    )
    alt = f"Best result so far against {unit}{_with_random(random)}"
    return Figure("best_by_hours", f"Best so far, by {unit}", alt, drawing, data)


def _with_random(random: Sequence[Expected]) -> str:
    return ", compared with random search" if random else ""


def _drawing(
    sweep: Sweep,
    steps: Sequence[Step],
    random: Sequence[Expected],
    label: str,
    at: Callable[[Step], float],
    at_random: Callable[[Expected], float],
) -> tuple[Drawing, list[dict[str, object]]]:
    """Draw the best result so far and the random search.

    Args:
        sweep: the sweep.
        steps: its progress.
        random: the random search; may be empty.
        label: label of the x axis.
        at: x coordinate of a step of the sweep.
        at_random: x coordinate of a number of random trials.

    Returns:
        The drawing and the plotted data.
    """
    scale = sweep.metric.scale
    with style.panel(style.WIDE) as (drawing, axes):
        if random:
            _band(axes, random, at_random, scale)
        best = [(at(step), scale * step.best) for step in steps if step.best is not None]
        axes.step(*zip(*best, strict=True), where="post", color=palette.ORANGE, label="this sweep")
        explored = len(random)
        if 0 < explored < len(steps):
            axes.axvline(at(steps[explored - 1]), color=palette.GREY, linestyle=":")
        style.linear_axis(axes, "x", whole=label == "trials")
        response = quality(sweep.metric)
        style.response_axis(axes, "y", replace(response, title=f"best {response.title}"))
        axes.set_xlabel(label)
        axes.legend(loc="lower right" if sweep.metric.direction == "maximize" else "upper right")
    data: list[dict[str, object]] = [{"curve": "this sweep", **asdict(step)} for step in steps]
    data += [{"curve": "random search", "hours": "", **asdict(e)} for e in random]
    return drawing, data


def _band(
    axes: Axes, random: Sequence[Expected], at: Callable[[Expected], float], scale: float
) -> None:
    x = [at(expected) for expected in random]
    half = len(random) // 2
    low = [scale * expected.unlucky for expected in random[:half]]
    high = [scale * expected.lucky for expected in random[:half]]
    axes.fill_between(x[:half], low, high, color=palette.BLUE, alpha=0.15, linewidth=0)
    axes.plot(
        x, [scale * e.mean for e in random], color=palette.BLUE, label="random search, expected"
    )
