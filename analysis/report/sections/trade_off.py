"""Quality against peak memory: the Pareto front, and the best config for each memory budget."""

from collections.abc import Sequence

from analysis.records.trials import RANKED, Sweep, Trial
from analysis.report import style
from analysis.report.page import Figure, Gallery, Section, Table, cell
from analysis.statistics import pareto
from analysis.statistics.responses import PEAK_MEMORY, quality

TITLE = "Quality against memory"


def section(sweep: Sweep, reference_memory: int) -> Section | None:
    """The section; None without trials of explore and search.

    Args:
        sweep: whose trials of explore and search are looked at.
        reference_memory: bytes at the worse corner of the hypervolume.
    """
    if not sweep.of(*RANKED):
        return None
    front = pareto.front(sweep.complete)
    if not front:
        return Section(TITLE, "No complete trial of explore or search has a measured peak.")
    reference = pareto.reference(front[0].config.data, reference_memory)
    share = pareto.hypervolume(sweep.complete, reference)
    metric = sweep.metric
    corner = f"{metric.alone(reference.value)} at {reference_memory / 2**20:g} MiB"
    return Section(
        TITLE,
        _finding(front, sweep.complete),
        [
            Gallery(
                "Complete trials of explore and search, one training seed each. Those on the line "
                "are better than every other in one of the two.",
                [_figure(sweep, front)],
            ),
            f"Hypervolume {share:.3f}: the share of what is better than {corner} (a learner that "
            "knows nothing, at a memory fixed beforehand) that these trials dominate. It compares "
            "with that of another sweep where that corner is the same.",
            _budget_table(sweep),
        ],
    )


def _finding(front: Sequence[Trial], complete: Sequence[Trial]) -> str:
    least, best = front[0], front[-1]
    if least is best:
        measured = all(trial.peak_memory_bytes is not None for trial in complete)
        among = "" if measured else " of those with a measured peak"
        return f"One config{among} is best in both: {_said(best)}."
    return f"From {_said(least)} to {_said(best)}; {len(front)} configs lie on the front."


def _said(trial: Trial) -> str:
    assert trial.value is not None
    peak = PEAK_MEMORY.of(trial)
    return f"{trial.config.data.metric.alone(trial.value)} in {peak:.0f} MiB"


def _figure(sweep: Sweep, front: Sequence[Trial]) -> Figure:
    response = quality(sweep.metric)
    points = [
        (trial, PEAK_MEMORY.of(trial), response.of(trial))
        for trial in sweep.complete
        if trial.peak_memory_bytes is not None
    ]
    memories = [memory for _, memory, _ in points if memory]
    with style.panel(style.WIDE) as (drawing, axes):
        for stage in RANKED:
            of_stage = [(m, v) for trial, m, v in points if trial.stage == stage]
            if of_stage:
                colour = style.STAGES[stage]
                x, y = zip(*of_stage, strict=True)
                axes.scatter(x, y, s=22, color=colour, label=stage)
        corners = [(PEAK_MEMORY.of(trial), response.of(trial)) for trial in front]
        corners.append((max(memories), corners[-1][1]))
        axes.step(
            *zip(*corners, strict=True),
            where="post",
            color=style.GREY,
            linewidth=1.2,
            zorder=1,
            label="Pareto front",
        )
        style.log_axis(axes, "x", min(memories), max(memories))
        axes.set(xlabel=PEAK_MEMORY.label, ylabel=response.label)
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


def _budget_table(sweep: Sweep) -> Table:
    metric = sweep.metric
    budgets = pareto.budgets(sweep.complete)
    names = list(sweep.space)
    rows = []
    for budget, trial in zip(budgets, pareto.best_within(sweep.complete, budgets), strict=True):
        assert trial is not None
        assert trial.value is not None
        values = trial.config.flat()
        settings = [cell(values.get(name)) for name in names]
        peak = f"{PEAK_MEMORY.of(trial):.1f}"
        value = metric.number(trial.value, trial.val_interval or 0.0, decimals=1)
        rows.append([f"{budget / 2**20:g} MiB", value, peak, trial.run_name, *settings])
    quality_heading = f"{metric.title} {metric.unit}".strip()
    return Table(
        "The best trial within each budget of peak memory, by one training seed; intervals are "
        "over validation tasks. The best of many overstates itself: see the confirmed results.",
        ["budget", quality_heading, "peak MiB", "trial", *names],
        rows,
    )
