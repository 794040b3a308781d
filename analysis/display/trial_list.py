"""The trials of a sweep as tables for the terminal, and as flat rows for JSON."""

from collections import Counter
from collections.abc import Iterable

from rich.console import Console

from analysis.display.columns import Column, tables
from analysis.formatting import mebibytes
from analysis.records.trials import BLOCKS, RANKED, Sweep, Trial
from memmeta.system.units import short
from sweeps.engine.study.result import score_keys

_NO_RANK = "–"
"""Printed in place of a rank."""


def rows(sweep: Sweep) -> list[dict[str, object]]:
    """One dict per trial, all with the same keys. Only trials of `Sweep.ranking` have a rank."""
    ranks = _ranks(sweep)
    settings = _settings(sweep.trials)
    return [
        {
            "study": sweep.study,
            "sweep": sweep.name,
            "rank": ranks.get(trial.run_id),
            "stage": trial.stage,
            "index": trial.index,
            "run_name": trial.run_name,
            "status": trial.status,
            "message": trial.message,
            **{name: values[number] for name, values in settings.items()},
            trial.config.data.metric.key: trial.value,
            "val_interval": trial.val_interval,
            f"test_{trial.config.data.metric.name}": trial.test_value,
            "test_interval": trial.test_interval,
            **_other_scores(trial, sweep.others),
            "peak_memory_bytes": trial.peak_memory_bytes,
            "predicted_memory_bytes": trial.predicted_memory_bytes,
            "reserved_memory_bytes": trial.reserved_memory_bytes,
            "seconds_per_step": trial.seconds_per_step,
            "seconds": trial.seconds,
            "key": trial.key,
            "run_id": trial.run_id,
            "parent_run_id": trial.parent_run_id,
            "commit": trial.commit,
            "hardware": trial.hardware,
            "threads": trial.threads,
            "gpus": trial.gpus,
            "data_digest": trial.data_digest,
        }
        for number, trial in enumerate(sweep.trials)
    ]


def _other_scores(trial: Trial, names: Iterable[str]) -> dict[str, float | None]:
    """The metric on the test tasks of other data sets, and its interval."""
    values: dict[str, float | None] = {}
    for name in names:
        score = trial.others.get(name)
        value, interval = score_keys(trial.config.data.metric, name)
        values |= {value: score and score.value, interval: score and score.interval}
    return values


def show(console: Console, sweep: Sweep) -> None:
    """Print one line per trial, with the hyperparameters in which the trials differ.

    Stages whose results are not comparable are printed in separate blocks.
    """
    settings, ranks = _settings(sweep.trials), _ranks(sweep)
    shared = {name for name, values in settings.items() if _same(values)}
    console.print(f"{sweep.name}: {len(sweep.trials)} trials")
    for stages in BLOCKS:
        trials = sweep.trials_in(*stages)
        if trials:
            complete = sum(trial.status == "complete" for trial in trials)
            feasible = _feasible(sweep) if stages == RANKED else ""
            names = " and ".join(stages)
            console.print(f"\n{names}: {complete} of {len(trials)} trials complete{feasible}")
            _show_block(console, trials, ranks, shared)
    if shared:
        same = ", ".join(
            f"{name} {short(settings[name][0])}" for name in settings if name in shared
        )
        console.print(f"\nthe same in all: {same}")


def _ranks(sweep: Sweep) -> dict[str, int]:
    """Ranks from 1, by MLflow run."""
    return {trial.run_id: rank for rank, trial in enumerate(sweep.ranking, 1)}


def _feasible(sweep: Sweep) -> str:
    """The number of feasible trials, if the sweep has a memory limit."""
    limit = sweep.memory_limit
    if limit is None:
        return ""
    return f", {len(sweep.ranking)} of them feasible (peak memory at most {mebibytes(limit)} MiB)"


def _unranked(trials: tuple[Trial, ...], ranks: dict[str, int]) -> str | None:
    """The reasons why trials have no rank, with counts; None if all have one."""
    reasons = Counter(
        "over the memory limit" if trial.status == "complete" else trial.status.replace("_", " ")
        for trial in trials
        if trial.run_id not in ranks
    )
    counts = ", ".join(f"{number} {reason}" for reason, number in reasons.items())
    return f"{_NO_RANK} no rank: {counts}" if counts else None


def _show_block(
    console: Console, trials: tuple[Trial, ...], ranks: dict[str, int], shared: set[str]
) -> None:
    """Print the trials of a group of stages, without the settings that all stages share."""
    settings = {name: values for name, values in _settings(trials).items() if name not in shared}
    columns = [
        *_result_columns(trials),
        *(
            Column(name.replace("_", "\n"), list(map(short, values)))
            for name, values in settings.items()
            if not _same(values)
        ),
    ]
    for table in tables(console, _naming_columns(trials, ranks), columns):
        console.print(table)
    unranked = _unranked(trials, ranks) if trials[0].stage in RANKED else None
    if unranked:
        console.print(unranked)
    same = [f"{name} {short(values[0])}" for name, values in settings.items() if _same(values)]
    if same:
        console.print(f"the same in these: {', '.join(same)}")


def _settings(trials: tuple[Trial, ...]) -> dict[str, list[object]]:
    """Every setting with its value in each trial, None where it does not apply."""
    flat = [trial.config.flat() for trial in trials]
    names = dict.fromkeys(name for values in flat for name in values)
    return {name: [values.get(name) for values in flat] for name in names}


def _same(values: list[object]) -> bool:
    return all(value == values[0] for value in values)


def _naming_columns(trials: tuple[Trial, ...], ranks: dict[str, int]) -> list[Column]:
    names = Column("trial", [f"{trial.stage} {trial.index:03d}" for trial in trials])
    if trials[0].stage not in RANKED:
        return [names]
    return [Column("#", [str(ranks.get(trial.run_id, _NO_RANK)) for trial in trials]), names]


def _result_columns(trials: tuple[Trial, ...]) -> list[Column]:
    metric = trials[0].config.data.metric  # all trials of a sweep use one data set
    columns = [
        # The value of an incomplete trial is not comparable, so its status is shown instead.
        Column(f"val {metric.title}\n{metric.unit}".rstrip(), list(map(_result, trials))),
        Column("peak\nMiB", [mebibytes(trial.peak_memory_bytes) for trial in trials]),
        Column("s/step", [short(trial.seconds_per_step) for trial in trials]),
    ]
    if any(trial.test_value is not None for trial in trials):
        test = Column(f"test {metric.title}\n{metric.unit}".rstrip(), list(map(_test, trials)))
        columns.insert(1, test)
    others = dict.fromkeys(name for trial in trials for name in trial.others)
    columns += [
        Column(f"test on\n{name}\n{metric.unit}".rstrip(), [_on_other(t, name) for t in trials])
        for name in others
    ]
    return columns


def _result(trial: Trial) -> str:
    if trial.status != "complete" or trial.value is None or trial.val_interval is None:
        return trial.status.replace("_", " ")
    return trial.config.data.metric.rounded(trial.value, trial.val_interval, unit=False)


def _on_other(trial: Trial, name: str) -> str:
    score = trial.others.get(name)
    if score is None or score.value is None or score.interval is None:
        return ""
    return trial.config.data.metric.rounded(score.value, score.interval, unit=False)


def _test(trial: Trial) -> str:
    if trial.status != "complete" or trial.test_value is None or trial.test_interval is None:
        return ""
    return trial.config.data.metric.rounded(trial.test_value, trial.test_interval, unit=False)
