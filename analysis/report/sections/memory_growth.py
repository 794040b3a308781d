"""Peak memory against the inner steps: slope, intervals and an equivalence test."""

import itertools
from collections.abc import Sequence

from analysis.formatting import signed_percent
from analysis.records.trials import Sweep, Trial
from analysis.report import style
from analysis.report.page import Figure, Gallery, Section, Table
from analysis.statistics.factorial import STEP_SIZES
from analysis.statistics.growth import MARGIN, Growth, growth, label
from analysis.statistics.responses import PEAK_MEMORY
from sweeps.engine.study.outcome import Stage

TITLE = "Memory against K"


def section(sweep: Sweep) -> Section | None:
    """The section; None if no stage varied the inner steps."""
    analysed = _analysed_stage(sweep)
    if analysed is None:
        return None
    stage, trials, growths = analysed
    caption = (
        f"Complete trials of stage {stage}. The trials differ in all settings that this stage "
        "varies; the test above controls for the other settings."
    )
    return Section(
        TITLE,
        " ".join(map(_sentence, growths)),
        [_table(growths), Gallery(caption, [_figure(trials)])],
    )


def _analysed_stage(sweep: Sweep) -> tuple[str, Sequence[Trial], Sequence[Growth]] | None:
    """The most informative stage: grid, which controls for other settings by design, or explore."""
    stages: tuple[Stage, ...] = ("grid", "explore")
    for stage in stages:
        trials = [
            trial for trial in sweep.trials_in(stage) if PEAK_MEMORY.value_of(trial) is not None
        ]
        tuned = sweep.settings.get(stage, {}).get("tuned", {})
        without_memory = [name for name in STEP_SIZES if name in tuned]
        growths = [g for g in growth(trials, tuned=without_memory) if g.lowest < g.highest]
        if growths:
            return stage, trials, growths
    return None


def _sentence(result: Growth) -> str:
    span = f"from K = {result.lowest} to {result.highest}"
    if result.total is None or result.confidence is None:
        return f"{result.label}: undecided {span} ({result.reason})."
    low, high = map(signed_percent, result.confidence)
    measured = signed_percent(result.total)
    if not low == high == measured:  # peaks are often equal to the byte
        measured += f", 95 % interval {low} to {high}"
    if result.verdict == "undecided":
        return f"{result.label}: undecided whether it grows {span} ({measured})."
    return f"{result.label}: {result.verdict} {span} ({measured})."


def _table(growths: Sequence[Growth]) -> Table:
    return Table(
        "Relative least-squares fit of peak memory as a linear function of K, controlling for the "
        "other settings; trials that differ only in the seed are averaged. Memory does not grow "
        "if two one-sided t-tests (5 % each) show that the growth over the whole range of K is "
        f"within ± {MARGIN:.0%}: its 90 % interval lies inside. It grows if that fails and the "
        "95 % interval lies above 0. Absence of significance is not evidence of absence, hence "
        "the third verdict, undecided.",
        [
            "algorithm",
            "trials",
            "K",
            "MiB per step of K",
            "growth over the range",
            "95 % interval",
            "90 % interval",
            "verdict",
        ],
        [_row(result) for result in growths],
    )


def _row(result: Growth) -> list[str]:
    start = [result.label, str(result.trials), f"{result.lowest} to {result.highest}"]
    if result.total is None or result.confidence is None or result.equivalence is None:
        return [*start, "", "", "", "", f"undecided: {result.reason}"]
    bounds = (result.confidence, result.equivalence)
    intervals = [" to ".join(map(signed_percent, ends)) for ends in bounds]
    slope = f"{result.mib_per_step:+.2f}"
    return [*start, slope, signed_percent(result.total), *intervals, result.verdict]


def _figure(trials: Sequence[Trial]) -> Figure:
    steps = [trial.config.learner.inner_steps for trial in trials]
    peaks = [PEAK_MEMORY.value_of(trial) or 0.0 for trial in trials]
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
