"""Overview of the sweep: task, stages, space, budget, hardware, commits, and all trials."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from analysis.formatting import mebibytes
from analysis.records.trials import Sweep, Trial
from analysis.report.page import Section, Table
from memmeta.config import RunConfig
from memmeta.system.units import short
from sweeps.engine.study.dimension import described
from sweeps.engine.study.outcome import Stage, Status

_STAGES: tuple[Stage, ...] = get_args(Stage)
_STATUSES: tuple[Status, ...] = get_args(Status)

TITLE = "What was run"


def section(sweep: Sweep) -> Section:
    """The section; every report has it."""
    stages = [stage for stage in _STAGES if sweep.trials_in(stage)]
    counts = ", ".join(f"{len(sweep.trials_in(stage))} {stage}" for stage in stages)
    hours = hours_text(sweep.trials)
    space = [_space_table(sweep.space)] if sweep.trials_in("explore", "search") else []
    return Section(
        title=TITLE,
        finding=f"{len(sweep.trials)} trials ({counts}), {hours} in total. "
        f"{_statuses(sweep.trials)}",
        blocks=[
            _task(sweep),
            _where(sweep.trials),
            _stage_table(sweep, stages),
            *space,
            _fixed(sweep),
            _trial_table(sweep),
        ],
    )


def hours_text(trials: Iterable[Trial]) -> str:
    """Time of all trials: `3.2 GPU-hours`, or CPU-core-hours without a GPU."""
    trials = list(trials)
    hours = sum(trial.device_hours or 0 for trial in trials)
    return f"{hours:.2g} {hours_unit(trials)}"


def hours_unit(trials: Iterable[Trial]) -> str:
    """`GPU-hours`, or `CPU-hours` if no trial had a GPU."""
    return "GPU-hours" if any(trial.gpus for trial in trials) else "CPU-hours"


def _statuses(trials: Sequence[Trial]) -> str:
    counts = Counter(trial.status for trial in trials)
    if counts["complete"] == len(trials):
        return "All are complete."
    return f"By status: {status_counts(counts)}."


def status_counts(counts: Mapping[Status, int]) -> str:
    """Statuses with their numbers of trials: `3 complete, 1 out of memory`."""
    return ", ".join(f"{counts[s]} {s.replace('_', ' ')}" for s in _STATUSES if counts.get(s))


def _task(sweep: Sweep) -> str:
    config = next((t.config for t in sweep.trials if t.stage != "tune"), sweep.trials[0].config)
    data = config.data
    task = f"{data.ways}-way {data.shots}-shot" if data.ways > 1 else f"{data.shots}-shot"
    trained = f", trained {data.train_ways}-way" if data.train_ways else ""
    tuning = sweep.trials_in("tune")
    tuned = f" Each trial of stage tune {_budget(tuning[0].config)}." if tuning else ""
    tested = (
        f"; trials of stage confirm are also tested, once, on {config.training.test_tasks} test "
        "tasks"
    )
    return (
        f"{data.name}, {task}{trained}, {data.queries} queries per class in training and "
        f"{data.eval_queries} in evaluation. Each trial {_budget(config)}, the same for all trials"
        f"{tested if sweep.trials_in('confirm') else ''}.{tuned}"
    )


def _budget(config: RunConfig) -> str:
    budget = config.training
    return f"trains on {budget.amount} and is validated on {budget.val_tasks} tasks"


def _where(trials: Sequence[Trial]) -> str:
    hardware = sorted({trial.hardware for trial in trials if trial.hardware})
    commits = sorted({_short_commit(trial.commit) for trial in trials if trial.commit})
    digests = {trial.data_digest for trial in trials if trial.data_digest}
    text = f"Run on {'; '.join(hardware) or 'unknown hardware'}"
    text += f" with memmeta {', '.join(commits) or 'of unknown commit'}"
    if len(commits) > 1:
        text += " (more than one commit: differences may not be due to the settings alone)"
    if len(digests) > 1:
        text += " and on data that changed during the sweep (more than one digest)"
    return f"{text}."


def _short_commit(commit: str) -> str:
    """The first twelve digits, and `-dirty` if the work tree was dirty."""
    digits, _, dirty = commit.partition("-")
    return f"{digits[:12]}-{dirty}" if dirty else digits[:12]


def _stage_table(sweep: Sweep, stages: Sequence[Stage]) -> Table:
    present = [s for s in _STATUSES if any(trial.status == s for trial in sweep.trials)]
    rows = []
    for stage in stages:
        trials = sweep.trials_in(stage)
        counts = Counter(trial.status for trial in trials)
        numbers = [str(counts[status]) for status in present]
        rows.append([stage, str(len(trials)), *numbers, hours_text(trials)])
    return Table(
        "Trials by stage and status",
        ["stage", "trials", *(status.replace("_", " ") for status in present), "time"],
        rows,
        "Stage explore is a space-filling design, search contains the "
        "proposals of the optimiser, confirm the best configs with fresh seeds, grid a factorial "
        "design, and tune the trials that tuned its cells. Every statistic below states which "
        "stages it uses.",
    )


def _space_table(space: Mapping[str, BaseDistribution]) -> Table:
    return Table(
        "The search space of explore and search",
        ["dimension", "values", "scale"],
        [[name, _range(dimension), _scale(dimension)] for name, dimension in space.items()],
    )


def _range(dimension: BaseDistribution) -> str:
    if isinstance(dimension, FloatDistribution | IntDistribution):
        return f"{dimension.low:g} to {dimension.high:g}"
    return ", ".join(map(str, described(dimension)))


def _scale(dimension: BaseDistribution) -> str:
    if not isinstance(dimension, FloatDistribution | IntDistribution):
        return "choices"
    return "logarithmic" if dimension.log else "linear"


def _settings(trials: Sequence[Trial]) -> tuple[dict[str, object], list[str]]:
    """The settings shared by all trials, and the names of the other settings."""
    flat = [trial.config.flat() for trial in trials]
    names = list(dict.fromkeys(name for values in flat for name in values))
    same = {n: flat[0][n] for n in names if all(v.get(n) == flat[0].get(n) for v in flat)}
    return same, [name for name in names if name not in same]


def _fixed(sweep: Sweep) -> str:
    same, _ = _settings(sweep.trials)
    return "Settings shared by all trials: " + ", ".join(f"{k} {v}" for k, v in same.items()) + "."


def _trial_table(sweep: Sweep) -> Table:
    _, varying = _settings(sweep.trials)
    metric = sweep.metric
    columns = ["trial", "status", f"{metric.title} {metric.unit}".strip(), "peak MiB", "s/step"]
    rows = [_trial_row(trial, varying) for trial in sweep.trials]
    title = f"All {len(rows)} trials, with the settings in which they differ"
    return Table(title, [*columns, *varying], rows, folded=True)


def _trial_row(trial: Trial, varying: Sequence[str]) -> list[str]:
    value = ""
    if trial.value is not None:
        value = trial.config.data.metric.rounded(trial.value, trial.val_interval, unit=False)
    flat = trial.config.flat()
    settings = [short(flat.get(name)) for name in varying]
    status = trial.status.replace("_", " ")
    peak, step_time = mebibytes(trial.peak_memory_bytes), short(trial.seconds_per_step)
    return [trial.run_name, status, value, peak, step_time, *settings]
