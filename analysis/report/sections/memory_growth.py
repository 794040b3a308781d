"""Peak memory against the inner steps: slope, intervals and an equivalence test."""

import itertools
from collections.abc import Sequence

from analysis.formatting import signed_percent
from analysis.records.trials import Sweep, Trial
from analysis.report import style
from analysis.report.constant import is_constant, range_text
from analysis.report.page import Block, Figure, Gallery, InWords, Section, Table
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
    return Section(TITLE, _finding(growths), [_table(growths), _peaks(stage, trials)])


def _peaks(stage: str, trials: Sequence[Trial]) -> Block:
    """The figure, or a sentence if the peaks of every algorithm are constant."""
    figure = _figure(trials)
    peaks: dict[str, list[float]] = {}
    for trial in trials:
        peaks.setdefault(label(trial), []).append(PEAK_MEMORY.value_of(trial) or 0.0)
    if all(map(is_constant, peaks.values())):
        steps = [trial.config.learner.inner_steps for trial in trials]
        texts = (f"{range_text(PEAK_MEMORY, own)} ({name})" for name, own in peaks.items())
        return InWords(
            f"Peak memory of stage {stage} from K = {min(steps)} to {max(steps)}: "
            f"{', '.join(texts)}. No figure is drawn of peaks that differ by less than 1 %.",
            [figure],
        )
    caption = (
        f"Complete trials of stage {stage}. The trials differ in all settings that this stage "
        "varies; the test above controls for the other settings."
    )
    if len(peaks) > 1:
        caption += " Points of different algorithms are shifted sideways to be visible."
    return Gallery(caption, [figure])


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


def _finding(growths: Sequence[Growth]) -> str:
    """One sentence for each result; algorithms with the same result share one."""
    labels: dict[str, list[str]] = {}
    for result in growths:
        labels.setdefault(_verdict(result), []).append(result.label)
    return " ".join(f"{'; '.join(names)}: {verdict}." for verdict, names in labels.items())


def _verdict(result: Growth) -> str:
    span = f"from K = {result.lowest} to {result.highest}"
    if result.total is None or result.confidence is None:
        return f"undecided {span} ({result.reason})"
    low, high = map(signed_percent, result.confidence)
    measured = signed_percent(result.total)
    if not low == high == measured:  # peaks are often equal to the byte
        measured += f", 95 % interval {low} to {high}"
    if result.verdict == "undecided":
        return f"undecided whether it grows {span} ({measured})"
    return f"{result.verdict} {span} ({measured})"


def _table(growths: Sequence[Growth]) -> Table:
    return Table(
        "Growth of peak memory over the range of K",
        [
            "algorithm",
            "verdict",
            "growth",
            "95 % interval",
            "90 % interval",
            "MiB per step",
            "trials",
        ],
        [_row(result) for result in growths],
        "Relative least-squares fit of peak memory as a linear function of K, from the smallest "
        "to the largest K; the MiB are for one step of K. The fit controls for the other "
        "settings; trials that differ only in the seed are averaged. Memory does not grow "
        "if two one-sided t-tests (5 % each) show that the growth over the whole range of K is "
        f"within ± {MARGIN:.0%}: its 90 % interval lies inside. It grows if that fails and the "
        "95 % interval lies above 0. Absence of significance is not evidence of absence, hence "
        "the third verdict, undecided.",
    )


def _row(result: Growth) -> list[str]:
    trials = str(result.trials)
    if result.total is None or result.confidence is None or result.equivalence is None:
        return [result.label, f"undecided: {result.reason}", *["–"] * 4, trials]
    bounds = (result.confidence, result.equivalence)
    intervals = [" to ".join(map(signed_percent, ends)) for ends in bounds]
    growth, slope = signed_percent(result.total), f"{result.mib_per_step:+.2f}"
    return [result.label, result.verdict, growth, *intervals, slope, trials]


_SHIFT = 1.04
"""Factor by which the points of an algorithm are shifted sideways from those of another."""


def _figure(trials: Sequence[Trial]) -> Figure:
    steps = [trial.config.learner.inner_steps for trial in trials]
    peaks = [PEAK_MEMORY.value_of(trial) or 0.0 for trial in trials]
    algorithms = list(map(label, trials))
    labels = list(dict.fromkeys(algorithms))
    with style.panel(style.WIDE) as (drawing, axes):
        looks = itertools.cycle(itertools.product("os^D", style.SERIES))
        log = min(steps) > 0
        for number, (name, (marker, colour)) in enumerate(zip(labels, looks, strict=False)):
            rows = [row for row, algorithm in enumerate(algorithms) if algorithm == name]
            # Equal distances on a logarithmic axis.
            shift = _SHIFT ** (number - (len(labels) - 1) / 2) if log else 1.0
            x, y = [steps[row] * shift for row in rows], [peaks[row] for row in rows]
            axes.scatter(x, y, s=22, color=colour, marker=marker, alpha=0.8, label=name)
        if log:
            style.log_axis(axes, "x", min(steps), max(steps))
        else:
            style.linear_axis(axes, "x", whole=True)
        style.response_axis(axes, "y", PEAK_MEMORY, log=True)
        axes.set_xlabel("K, inner steps")
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
