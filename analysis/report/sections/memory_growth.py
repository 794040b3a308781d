"""Peak memory against the inner steps: slope, interval, and a test that it does not grow."""

import itertools
from collections.abc import Sequence

from analysis.records.trials import Sweep, Trial
from analysis.report import style
from analysis.report.page import Figure, Gallery, Section, Table
from analysis.statistics.factorial import STEP_SIZES
from analysis.statistics.growth import MARGIN, Growth, growth, label
from analysis.statistics.responses import PEAK_MEMORY
from sweeps.engine.study.outcome import Stage

TITLE = "Memory against K"


def section(sweep: Sweep) -> Section | None:
    """The section; None where no stage varied the inner steps."""
    found = _varied(sweep)
    if found is None:
        return None
    stage, trials, growths = found
    caption = (
        f"Complete trials of stage {stage}. Dots differ in all that this stage varies; the test "
        "below holds the other settings."
    )
    return Section(
        TITLE,
        " ".join(map(_sentence, growths)),
        [_table(growths), Gallery(caption, [_figure(trials)])],
    )


def _varied(sweep: Sweep) -> tuple[str, Sequence[Trial], Sequence[Growth]] | None:
    """The stage that says most of the inner steps: a grid holds all else by design."""
    stages: tuple[Stage, ...] = ("grid", "explore")
    for stage in stages:
        trials = [trial for trial in sweep.of(stage) if PEAK_MEMORY.of(trial) is not None]
        tuned = sweep.settings.get(stage, {}).get("tuned", {})
        without_memory = [name for name in STEP_SIZES if name in tuned]
        growths = [g for g in growth(trials, tuned=without_memory) if g.lowest < g.highest]
        if growths:
            return stage, trials, growths
    return None


def _sentence(found: Growth) -> str:
    span = f"from K = {found.lowest} to {found.highest}"
    if found.total is None or found.interval is None:
        return f"{found.label}: undecided {span} ({found.reason})."
    low, high = map(_percent, found.interval)
    measured = _percent(found.total)
    if not low == high == measured:  # peaks are often equal to the byte
        measured += f", 95 % interval {low} to {high}"
    if found.verdict == "undecided":
        return f"{found.label}: undecided whether it grows {span} ({measured})."
    return f"{found.label}: {found.verdict} {span} ({measured})."


def _table(growths: Sequence[Growth]) -> Table:
    return Table(
        "Least squares fit of peak memory, in proportion, as a straight line in K, the other "
        "settings held; trials that differ in the seed alone are one. It does not grow if two "
        "one-sided t tests (5 % each) find the growth over the whole range of K within "
        f"± {MARGIN:.0%}, which is to say that its 90 % interval lies there; it grows if that is "
        "not so and the 95 % interval lies above 0.",
        [
            "algorithm",
            "trials",
            "K",
            "MiB a step of K",
            "over the range",
            "95 % interval",
            "90 % interval",
            "verdict",
        ],
        [_row(found) for found in growths],
    )


def _row(found: Growth) -> list[str]:
    start = [found.label, str(found.trials), f"{found.lowest} to {found.highest}"]
    if found.total is None or found.interval is None or found.equivalence is None:
        return [*start, "", "", "", "", f"undecided: {found.reason}"]
    intervals = [" to ".join(map(_percent, of)) for of in (found.interval, found.equivalence)]
    slope = f"{found.amount_per_step:+.2f}"
    return [*start, slope, _percent(found.total), *intervals, found.verdict]


def _percent(share: float) -> str:
    """With a sign, but for what is 0 to the digits shown."""
    return f"{share:+.1%}" if abs(share) >= 0.0005 else "0.0%"


def _figure(trials: Sequence[Trial]) -> Figure:
    steps = [trial.config.learner.inner_steps for trial in trials]
    peaks = [PEAK_MEMORY.of(trial) or 0.0 for trial in trials]
    algorithms = list(map(label, trials))
    labels = list(dict.fromkeys(algorithms))
    with style.panel(style.WIDE) as (drawing, axes):
        looks = itertools.cycle(itertools.product("os^D", style.SERIES))
        for name, (marker, colour) in zip(labels, looks, strict=False):
            rows = [row for row, algorithm in enumerate(algorithms) if algorithm == name]
            x, y = [steps[row] for row in rows], [peaks[row] for row in rows]
            axes.scatter(x, y, s=22, color=colour, marker=marker, alpha=0.8, label=name)
        if min(steps) > 0:
            style.log_axis(axes, "x", min(steps), max(steps))
        else:
            style.linear_axis(axes, "x", whole=True)
        style.log_axis(axes, "y", min(peaks), max(peaks))
        axes.set(xlabel="K, inner steps", ylabel=PEAK_MEMORY.label)
        drawing.legend(loc="outside upper center", ncols=min(2, len(labels)))
    data = [
        {
            "trial": trial.run_name,
            "algorithm": algorithm,
            "inner_steps": k,
            "peak_memory_mib": peak,
        }
        for trial, algorithm, k, peak in zip(trials, algorithms, steps, peaks, strict=True)
    ]
    alt = f"Peak memory of {len(trials)} trials against the inner steps, by algorithm"
    return Figure("memory_against_k", "Peak memory against K", alt, drawing, data)
