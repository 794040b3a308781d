"""The best trials of a study as a file that `memmeta train` takes."""

import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from analysis.confirmed import confirmed, fresh_seed_interval
from analysis.pareto import front
from analysis.trials import RANKED, Sweep, Trial
from memmeta import files
from memmeta.config import parse
from memmeta.errors import InputError
from memmeta.exported import Confirmed, Export, ExportedRun

TOP = 3
"""How many are exported unless more is said."""

_HEADER = """\
# The best {runs} of {trials} explore and search trials of {sweep},
# by {metric} on the validation tasks.
{conditions}\
# Written by: {command}
# Train one:  python -m memmeta train {file} --rank 1
"""


@dataclass(frozen=True)
class Selection:
    """Which of the complete trials of explore and search are exported, the best first."""

    top: int | None = None
    """How many at most; None: all."""
    max_memory: int | None = None
    """Only those whose peak memory was measured and is within so many bytes."""
    pareto: bool = False
    """Only the Pareto front of the metric and peak memory."""

    @property
    def conditions(self) -> list[str]:
        """What a trial has to be besides good."""
        limit = self.max_memory
        return [
            *(["on the Pareto front with peak memory"] if self.pareto else []),
            *([] if limit is None else [f"with a peak memory of at most {_size(limit)}"]),
        ]

    @property
    def options(self) -> list[str]:
        """The same on the command line."""
        return [
            *([] if self.top is None else ["--top", str(self.top)]),
            *([] if self.max_memory is None else ["--max-memory", str(self.max_memory)]),
            *(["--pareto"] if self.pareto else []),
        ]


def best_runs(sweep: Sweep, selection: Selection) -> Export:
    """The selected trials of a sweep, or as many as there are.

    Raises:
        InputError: there are none.
    """
    candidates = sweep.of(*RANKED)
    if not candidates:
        others = _counted(trial.stage for trial in sweep.trials)
        raise InputError(f"{sweep.name}: no explore or search trials to export ({others})")
    if not sweep.complete:
        others = _counted(trial.status.replace("_", " ") for trial in candidates)
        raise InputError(f"{sweep.name}: no complete explore or search trial to export ({others})")
    runs = [_exported(trial, sweep) for trial in _selected(sweep, selection)]
    return Export(study=sweep.study, runs=runs)


def write(
    export: Export, sweep: Sweep, selection: Selection, path: Path, command: list[str]
) -> None:
    """Write `export` to `path`, whole or not at all.

    Args:
        export: what to write.
        sweep: where it is from, for the header.
        selection: how it was chosen, for the header.
        path: the file; one that exists is replaced.
        command: the command line that asked for it, for the header.

    Raises:
        InputError: the file cannot be written.
    """
    header = _HEADER.format(
        runs=len(export.runs),
        trials=len(sweep.of(*RANKED)),
        sweep=sweep.name,
        metric=export.runs[0].config.data.metric.title,
        conditions="".join(f"# Only trials {words}.\n" for words in selection.conditions),
        command=shlex.join(command),
        file=shlex.quote(path.name),
    )
    content = yaml.safe_dump(export.model_dump(), sort_keys=False, allow_unicode=True)
    if path.is_dir():
        raise InputError(f"{path}: cannot be written (a folder)")
    try:
        with files.whole(path) as file:
            file.write((header + content).encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def _selected(sweep: Sweep, selection: Selection) -> list[Trial]:
    trials = sweep.complete
    if selection.max_memory is not None:
        trials = _within(sweep, selection.max_memory)
    if selection.pareto:
        # By increasing memory, and so from the worst metric on.
        trials = front(trials)[::-1]
    if not trials:
        raise InputError(f"{sweep.name}: no trial to export whose peak memory was measured")
    return list(trials[: selection.top])


def _within(sweep: Sweep, limit: int) -> tuple[Trial, ...]:
    """The ranking without trials that may hold more than `limit` bytes."""
    peaks = [t.peak_memory_bytes for t in sweep.complete if t.peak_memory_bytes is not None]
    if peaks and limit < min(peaks):
        raise InputError(
            f"{sweep.name}: no complete explore or search trial within {_size(limit)} of peak "
            f"memory, the smallest is {_size(min(peaks))}"
        )
    return tuple(
        trial
        for trial in sweep.complete
        if trial.peak_memory_bytes is not None and trial.peak_memory_bytes <= limit
    )


def _size(count: int) -> str:
    return f"{count:,} bytes ({count / 2**20:.1f} MiB)"


def _counted(words: Iterable[str]) -> str:
    counts = Counter(words)
    return ", ".join(f"{number} {word}" for word, number in counts.items()) or "no trials"


def _exported(trial: Trial, sweep: Sweep) -> ExportedRun:
    return parse(
        ExportedRun,
        {
            "config": trial.config,
            "results": {
                trial.config.data.metric.key: trial.value,
                "val_interval": trial.val_interval,
                "val_tasks": trial.config.training.val_tasks,
                "peak_memory_bytes": trial.peak_memory_bytes,
                "seconds_per_step": trial.seconds_per_step,
                "confirmed": _confirmed(trial, sweep),
                "fresh_seed": fresh_seed_interval(trial, sweep),
            },
            "provenance": {
                "commit": trial.commit,
                "hardware": trial.hardware,
                "threads": trial.threads,
                "data_digest": trial.data_digest,
                "mlflow_run_id": trial.run_id,
                "mlflow_parent_run_id": trial.parent_run_id,
            },
        },
        f"{trial.run_name} (MLflow run {trial.run_id})",
    )


def _confirmed(trial: Trial, sweep: Sweep) -> Confirmed | None:
    """What fresh seeds gave for the config of a trial of the ranking."""
    for config in confirmed(sweep):
        if config.confirms(trial):
            return Confirmed(seeds=list(config.seeds), val=config.val.value, test=config.test.value)
    return None
