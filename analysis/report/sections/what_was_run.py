"""What was run: space, stages, budget, hardware, commits, and every trial with how it ended."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from analysis.records.trials import Sweep, Trial
from analysis.report.page import Section, Table, cell
from memmeta.config import RunConfig
from sweeps.engine.study.dimension import described
from sweeps.engine.study.outcome import Stage, Status

_STAGES: tuple[Stage, ...] = get_args(Stage)
_STATUSES: tuple[Status, ...] = get_args(Status)

TITLE = "What was run"


def section(sweep: Sweep) -> Section:
    """The section."""
    stages = [stage for stage in _STAGES if sweep.of(stage)]
    counts = ", ".join(f"{len(sweep.of(stage))} {stage}" for stage in stages)
    hours = hours_text(sweep.trials)
    space = [_space_table(sweep.space)] if sweep.of("explore", "search") else []
    return Section(
        title=TITLE,
        finding=f"{len(sweep.trials)} trials ({counts}), {hours} in all. {_ended(sweep.trials)}",
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
    """What the trials took: `3.2 GPU-hours`, of CPU cores where there was no GPU."""
    trials = list(trials)
    hours = sum(trial.device_hours or 0 for trial in trials)
    return f"{hours:.2g} {hours_unit(trials)}"


def hours_unit(trials: Iterable[Trial]) -> str:
    """GPU-hours or CPU-hours."""
    return "GPU-hours" if any(trial.gpus for trial in trials) else "CPU-hours"


def _ended(trials: Sequence[Trial]) -> str:
    counts = Counter(trial.status for trial in trials)
    if counts["complete"] == len(trials):
        return "All of them ended well."
    return f"Of them {counted(counts)}."


def counted(counts: Mapping[Status, int]) -> str:
    """How trials ended: `3 complete, 1 out of memory`."""
    return ", ".join(f"{counts[s]} {s.replace('_', ' ')}" for s in _STATUSES if counts.get(s))


def _task(sweep: Sweep) -> str:
    config = next((t.config for t in sweep.trials if t.stage != "tune"), sweep.trials[0].config)
    data = config.data
    kind = f"{data.ways}-way {data.shots}-shot" if data.ways > 1 else f"{data.shots}-shot"
    trained = f", trained {data.train_ways}-way" if data.train_ways else ""
    tuning = sweep.of("tune")
    fewer = f" A trial of stage tune {_budget(tuning[0].config)}." if tuning else ""
    tested = f"; trials of stage confirm see {config.training.test_tasks} test tasks, once"
    return (
        f"{data.name}, {kind}{trained}, {data.queries} queries a class in training and "
        f"{data.eval_queries} in evaluation. A trial {_budget(config)}, the same for all"
        f"{tested if sweep.of('confirm') else ''}.{fewer}"
    )


def _budget(config: RunConfig) -> str:
    budget = config.training
    return f"trains on {budget.amount} and is validated on {budget.val_tasks} tasks"


def _where(trials: Sequence[Trial]) -> str:
    hardware = sorted({trial.hardware for trial in trials if trial.hardware})
    commits = sorted({_short_commit(trial.commit) for trial in trials if trial.commit})
    digests = {trial.data_digest for trial in trials if trial.data_digest}
    said = [f"Run on {'; '.join(hardware) or 'hardware that no trial reported'}"]
    said.append(f"with memmeta {', '.join(commits) or 'of unknown commit'}")
    if len(commits) > 1:
        said.append("(more than one commit: results may differ by more than their settings)")
    if len(digests) > 1:
        said.append("and on data that changed in between (more than one digest)")
    return " ".join(said) + "."


def _short_commit(commit: str) -> str:
    """Twelve digits, and whether the tree was dirty."""
    digits, _, dirty = commit.partition("-")
    return f"{digits[:12]}-{dirty}" if dirty else digits[:12]


def _stage_table(sweep: Sweep, stages: Sequence[Stage]) -> Table:
    present = [s for s in _STATUSES if any(trial.status == s for trial in sweep.trials)]
    rows = []
    for stage in stages:
        trials = sweep.of(stage)
        counts = Counter(trial.status for trial in trials)
        numbers = [str(counts[status]) for status in present]
        rows.append([stage, str(len(trials)), *numbers, hours_text(trials)])
    return Table(
        "Trials by stage and how they ended. explore is a space-filling design, search what the "
        "optimiser proposed, confirm the best configs with fresh seeds, grid a factorial design, "
        "tune what was tried to tune its cells; no statistic below mixes them without saying so.",
        ["stage", "trials", *(status.replace("_", " ") for status in present), "time"],
        rows,
    )


def _space_table(space: Mapping[str, BaseDistribution]) -> Table:
    return Table(
        "The space that explore and search covered.",
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
    """Settings that are the same in all trials, and names of those that are not."""
    flat = [trial.config.flat() for trial in trials]
    names = list(dict.fromkeys(name for values in flat for name in values))
    same = {n: flat[0][n] for n in names if all(v.get(n) == flat[0].get(n) for v in flat)}
    return same, [name for name in names if name not in same]


def _fixed(sweep: Sweep) -> str:
    same, _ = _settings(sweep.trials)
    return "The same in all trials: " + ", ".join(f"{k} {v}" for k, v in same.items()) + "."


def _trial_table(sweep: Sweep) -> Table:
    _, varying = _settings(sweep.trials)
    metric = sweep.metric
    columns = ["trial", "status", f"{metric.title} {metric.unit}".strip(), "peak MiB", "s/step"]
    rows = [_trial_row(trial, varying) for trial in sweep.trials]
    caption = f"All {len(rows)} trials, with what varies among them"
    return Table(caption, [*columns, *varying], rows, folded=True)


def _trial_row(trial: Trial, varying: Sequence[str]) -> list[str]:
    metric = trial.config.data.metric
    value = ""
    if trial.value is not None and trial.val_interval is not None:
        value = metric.number(trial.value, trial.val_interval, decimals=1)
    peak = "" if trial.peak_memory_bytes is None else f"{trial.peak_memory_bytes / 2**20:.1f}"
    flat = trial.config.flat()
    settings = [cell(flat.get(name)) for name in varying]
    status = trial.status.replace("_", " ")
    return [trial.run_name, status, value, peak, cell(trial.seconds_per_step), *settings]
