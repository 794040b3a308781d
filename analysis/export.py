"""The best trials of a study as a file that `memmeta train` takes."""

import shlex
import statistics
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import yaml

from analysis.trials import RANKED, Sweep, Trial
from memmeta import files
from memmeta.config import parse
from memmeta.errors import InputError
from memmeta.exported import Confirmed, Export, ExportedRun

_HEADER = """\
# The best {runs} of {trials} explore and search trials of {sweep},
# by {metric} on the validation tasks.
# Written by: {command}
# Train one:  python -m memmeta train {file} --rank 1
"""


def best_runs(sweep: Sweep, top: int) -> Export:
    """The `top` best complete trials of explore and search, or as many as there are.

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
    runs = [_exported(trial, sweep) for trial in sweep.complete[:top]]
    return Export(study=sweep.study, runs=runs)


def write(export: Export, sweep: Sweep, path: Path, command: list[str]) -> None:
    """Write `export` to `path`, whole or not at all.

    Args:
        export: what to write.
        sweep: where it is from, for the header.
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
    """What the trials of stage confirm gave that differ from this one in the seed alone."""
    found = [
        (other.config.seed, other.value, other.test_value)
        for other in sweep.of("confirm")
        if other.status == "complete"
        and other.value is not None
        and other.test_value is not None
        and other.config == trial.config.model_copy(update={"seed": other.config.seed})
    ]
    if not found:
        return None
    seeds, val, test = zip(*found, strict=True)
    return Confirmed(seeds=list(seeds), val=statistics.fmean(val), test=statistics.fmean(test))
