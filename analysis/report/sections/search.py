"""The search: best so far by trials and by hours, beside what a random search would expect."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from optuna.distributions import FloatDistribution, IntDistribution

from analysis.records.trials import RANKED, Sweep
from analysis.report import style
from analysis.report.page import Block, Figure, Gallery, Section
from analysis.report.sections.what_was_run import hours_unit
from analysis.statistics.responses import quality
from analysis.statistics.search_curves import (
    Expected,
    Step,
    best_so_far,
    boundary_warnings,
    expected_best,
    explored,
)
from sweeps.engine.study.outcome import FINAL

TITLE = "Search"


def section(sweep: Sweep) -> Section | None:
    """The section; None without trials of explore and search."""
    if not sweep.of(*RANKED):
        return None
    steps = best_so_far(sweep)
    if not sweep.complete:
        return Section(TITLE, "No trial of explore or search is complete.")
    random = expected_best(explored(sweep), sweep.metric)
    figures = [_by_trials(sweep, steps, random)]
    if steps[-1].hours:
        figures.append(_by_hours(sweep, steps, random))
    caption = _BEST + (_BESIDE if random else ".")
    blocks: list[Block] = [Gallery(caption, figures), *_warnings(sweep)]
    return Section(TITLE, _finding(sweep, steps, random), blocks)


_BEST = "Best validation result so far, by one training seed"
_BESIDE = (
    ": explore first, then search. Beside it a random search over the same space: the expected "
    "best of n trials, estimated from subsets of the trials of explore, with its 10 % and 90 % "
    "quantiles up to half of their number, beyond which subsets are too much alike to tell. It "
    "ends where explore does, since beyond that nothing is known of it."
)


def _finding(sweep: Sweep, steps: Sequence[Step], random: Sequence[Expected]) -> str:
    metric = sweep.metric
    best = sweep.complete[0]
    assert best.value is not None
    found = f"The best of {len(steps)} trials, {best.run_name}, has {metric.alone(best.value)}"
    proposed = [trial for trial in sweep.complete if trial.stage == "search"]
    tries = len(steps) - len(random)
    if proposed and 0 < tries <= len(random):
        assert proposed[0].value is not None
        found += (
            f". The {tries} trials that the optimiser proposed reached "
            f"{metric.alone(proposed[0].value)}; as many random ones would be expected to reach "
            f"{metric.alone(random[tries - 1].mean)}"
        )
    warnings = boundary_warnings(sweep)
    if warnings:
        found += f". It lies at an end of the space in {len(warnings)} of its dimensions"
    return found + "."


def _warnings(sweep: Sweep) -> list[str]:
    warnings = boundary_warnings(sweep)
    if not warnings:
        kinds = FloatDistribution, IntDistribution
        ends = any(isinstance(dimension, kinds) for dimension in sweep.space.values())
        return ["No end of the space that could be widened is near the best config."] * ends
    return [f"Boundary: in the best config {warning}." for warning in warnings]


def _by_trials(sweep: Sweep, steps: Sequence[Step], random: Sequence[Expected]) -> Figure:
    drawing, data = _drawing(
        sweep, steps, random, "trials", lambda step: step.trials, lambda e: e.trials
    )
    alt = f"Best result so far against the number of trials{_beside(random)}"
    return Figure("best_by_trials", "Best so far, by trials", alt, drawing, data)


def _by_hours(sweep: Sweep, steps: Sequence[Step], random: Sequence[Expected]) -> Figure:
    unit = hours_unit(sweep.of(*RANKED))
    finished = [trial for trial in sweep.of("explore") if trial.status in FINAL]
    explore = [trial.device_hours or 0.0 for trial in finished]
    mean = sum(explore) / len(explore) if explore else 0.0
    drawing, data = _drawing(
        sweep, steps, random, unit, lambda step: step.hours or 0.0, lambda e: mean * e.trials
    )
    alt = f"Best result so far against {unit}{_beside(random)}"
    return Figure("best_by_hours", f"Best so far, by {unit}", alt, drawing, data)


def _beside(random: Sequence[Expected]) -> str:
    return ", with that of a random search" if random else ""


def _drawing(
    sweep: Sweep,
    steps: Sequence[Step],
    random: Sequence[Expected],
    label: str,
    at: Callable[[Step], float],
    at_random: Callable[[Expected], float],
) -> tuple[Drawing, list[dict[str, object]]]:
    scale = 100 if sweep.metric.unit else 1
    with style.panel(style.WIDE) as (drawing, axes):
        if random:
            _band(axes, random, at_random, scale)
        found = [(at(step), scale * step.best) for step in steps if step.best is not None]
        axes.step(*zip(*found, strict=True), where="post", color=style.ORANGE, label="this sweep")
        explored_ones = len(random)
        if 0 < explored_ones < len(steps):
            axes.axvline(at(steps[explored_ones - 1]), color=style.GREY, linestyle=":")
        style.linear_axis(axes, "x", whole=label == "trials")
        axes.set(xlabel=label, ylabel=f"best {quality(sweep.metric).label}")
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
    axes.fill_between(x[:half], low, high, color=style.BLUE, alpha=0.15, linewidth=0)
    axes.plot(
        x, [scale * e.mean for e in random], color=style.BLUE, label="random search, expected"
    )
