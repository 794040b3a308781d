"""The best trials of a study as a file that `memmeta train` takes."""

import shlex
from collections import Counter
from pathlib import Path

import yaml

from analysis.trials import Sweep, Trial
from memmeta import files
from memmeta.config import parse
from memmeta.errors import InputError
from memmeta.exported import Export, ExportedRun

_HEADER = """\
# The best {runs} of {trials} trials of {sweep}, by {metric} on the validation tasks.
# Written by: {command}
# Train one:  python -m memmeta train {file} --rank 1
"""


def best_runs(sweep: Sweep, top: int) -> Export:
    """The `top` best complete trials of a sweep, or as many as there are.

    Raises:
        InputError: there are none.
    """
    if not sweep.complete:
        count = Counter(trial.status.replace("_", " ") for trial in sweep.trials)
        others = ", ".join(f"{number} {status}" for status, number in count.items())
        raise InputError(f"{sweep.name}: no complete trial to export ({others or 'no trials'})")
    return Export(study=sweep.study, runs=[_exported(trial) for trial in sweep.complete[:top]])


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
        trials=len(sweep.trials),
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


def _exported(trial: Trial) -> ExportedRun:
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
