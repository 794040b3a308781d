"""Metric against peak memory: the Pareto front, and the best trial for each memory budget."""

from collections.abc import Sequence
from itertools import groupby

from analysis.formatting import mebibytes
from analysis.records.trials import RANKED, Sweep, Trial
from analysis.report import style
from analysis.report.page import Block, Figure, Gallery, InWords, Section, Table
from analysis.report.settings import settings
from analysis.statistics import pareto
from analysis.statistics.responses import PEAK_MEMORY, quality
from memmeta.system import palette
from memmeta.system.units import MIB

TITLE = "Quality against memory"


def section(sweep: Sweep, reference_memory: int) -> Section | None:
    """The section; None without trials of explore and search.

    Args:
        sweep: the sweep; only its trials of explore and search are used.
        reference_memory: memory of the hypervolume's reference, in bytes.
    """
    if not sweep.trials_in(*RANKED):
        return None
    front = pareto.front(sweep.ranking)
    if not front:
        return Section(TITLE, "No complete trial of explore or search has a measured peak memory.")
    reference = pareto.reference(front[0].config.data, reference_memory)
    share = pareto.hypervolume(sweep.ranking, reference)
    metric = sweep.metric
    corner = f"{metric.rounded(reference.value)} at {reference_memory / MIB:g} MiB"
    return Section(
        TITLE,
        _finding(front, sweep.ranking),
        [
            *_drawn(sweep, front),
            f"Hypervolume {share:.3f}: the share of the region better than the reference point, "
            f"{corner}, that these trials dominate. The reference is a learner at chance level "
            "with a memory that is fixed in advance. Hypervolumes of two sweeps are comparable "
            "if their reference points are equal.",
            _budget_table(sweep),
        ],
    )


def _finding(front: Sequence[Trial], complete: Sequence[Trial]) -> str:
    least, best = front[0], front[-1]
    if least is best:
        measured = all(trial.peak_memory_bytes is not None for trial in complete)
        among = "" if measured else ", of those with a measured peak memory,"
        return f"One config{among} is best in both objectives: {_summary(best)}."
    return (
        f"The Pareto front extends from {_summary(least)} to {_summary(best)}; it has "
        f"{len(front)} configs."
    )


def _summary(trial: Trial) -> str:
    assert trial.value is not None
    peak = PEAK_MEMORY.value_of(trial)
    return f"{trial.config.data.metric.rounded(trial.value)} in {peak:.0f} MiB"


def _drawn(sweep: Sweep, front: Sequence[Trial]) -> list[Block]:
    """The figure, or a sentence if there are too few different results to compare."""
    figure = _figure(sweep, front)
    measured = [trial for trial in sweep.ranking if trial.peak_memory_bytes is not None]
    points = {(trial.peak_memory_bytes, trial.value) for trial in measured}
    if len(points) < _LEAST_POINTS:
        text = f"No figure is drawn of fewer than {_LEAST_POINTS} different results."
        return [InWords(text, [figure])]
    caption = (
        "Complete trials of explore and search, one training seed each. A trial is on the "
        "Pareto front if no other is at least as good in both and better in one."
    )
    return [Gallery(caption, [figure])]


_LEAST_POINTS = 3
"""Minimum number of different points in a figure."""


def _figure(sweep: Sweep, front: Sequence[Trial]) -> Figure:
    response = quality(sweep.metric)
    points = [
        (trial, PEAK_MEMORY.value_of(trial), response.value_of(trial))
        for trial in sweep.ranking
        if trial.peak_memory_bytes is not None
    ]
    memories = [memory for _, memory, _ in points if memory]
    with style.panel(style.WIDE) as (drawing, axes):
        for stage in RANKED:
            own = [(m, v) for trial, m, v in points if trial.stage == stage]
            if own:
                colour = style.STAGES[stage]
                x, y = zip(*own, strict=True)
                axes.scatter(x, y, s=22, color=colour, label=stage)
        corners = [(PEAK_MEMORY.value_of(trial), response.value_of(trial)) for trial in front]
        corners.append((max(memories), corners[-1][1]))
        axes.step(
            *zip(*corners, strict=True),
            where="post",
            color=palette.GREY,
            linewidth=1.2,
            zorder=1,
            label="Pareto front",
        )
        style.response_axis(axes, "x", PEAK_MEMORY, log=True)
        style.response_axis(axes, "y", response)
        axes.legend(loc="best")
    on_front = {trial.run_id for trial in front}
    data = [
        {
            "trial": trial.run_name,
            "peak_memory_mib": memory,
            response.name: value,
            "on_front": trial.run_id in on_front,
        }
        for trial, memory, value in points
    ]
    alt = f"{len(points)} trials: {response.title} against peak memory, with the Pareto front"
    return Figure("pareto", "Pareto front", alt, drawing, data)


_ABOUT_BUDGETS = (
    "Each has a single training seed; intervals are over validation tasks. The best of many trials "
    "looks better than it is (selection bias): see the confirmed results."
)


def _budget_table(sweep: Sweep) -> Table:
    metric = sweep.metric
    budgets = pareto.budgets(sweep.ranking)
    best = zip(pareto.best_within(sweep.ranking, budgets), budgets, strict=True)
    trials, rows = [], []
    for trial, admitting in groupby(best, key=lambda pair: pair[0]):
        assert trial is not None
        assert trial.value is not None
        admitted = [budget / MIB for _, budget in admitting]
        ends = dict.fromkeys(f"{end:g}" for end in (admitted[0], admitted[-1]))
        peak = mebibytes(trial.peak_memory_bytes)
        value = metric.rounded(trial.value, trial.val_interval, unit=False)
        rows.append([" to ".join(ends), value, peak, trial.run_name])
        trials.append(trial)
    names, values, same = settings(trials, sweep.space)
    return Table(
        "The best trial within each budget of peak memory",
        [
            "budget MiB",
            f"{metric.title} {metric.unit}".strip(),
            "peak MiB",
            "trial",
            *names,
        ],
        [row + texts for row, texts in zip(rows, values, strict=True)],
        f"{_ABOUT_BUDGETS} {same}".rstrip(),
    )
