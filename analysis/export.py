"""The best configs of a study as a file that `memmeta train` takes."""

import json
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from analysis.records.trials import RANKED, Sweep, Trial
from analysis.statistics.confirmed import confirmed, fresh_seed_interval, without_seed
from analysis.statistics.pareto import front
from memmeta.config import RECORD_VERSION, RunConfig, parse
from memmeta.errors import InputError
from memmeta.exported import Confirmed, Export, ExportedRun
from memmeta.system import files

TOP = 3
"""How many are exported unless more is said."""

SUFFIXES = (".yaml", ".yml", ".json")
"""Accepted suffixes of the file. The last one means JSON, the others YAML."""


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
    """The selected trials of a sweep, or all if there are fewer; each config once.

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
    return Export(version=RECORD_VERSION, study=sweep.study, runs=runs)


def check_suffix(path: Path) -> None:
    """Refuse a file whose name does not say which format it is to have.

    Raises:
        InputError: its suffix is none of `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--out {path}: a name that ends in {', '.join(SUFFIXES)} is accepted")


def write(
    export: Export, sweep: Sweep, selection: Selection, path: Path, command: list[str]
) -> None:
    """Write `export` to `path`, whole or not at all.

    Args:
        export: what to write.
        sweep: its sweep, named in the file.
        selection: how the runs were chosen, stated in the file.
        path: the file; one that exists is replaced.
        command: the command line that asked for it, stated in the file.

    Raises:
        InputError: the file cannot be written, or `check_suffix` refuses its name.
    """
    check_suffix(path)
    metric = export.runs[0].config.data.metric.title
    about = [
        f"The best {len(export.runs)} of the configs of {len(sweep.of(*RANKED))} explore and "
        f"search trials of {sweep.name},",
        f"by {metric} on the validation tasks.",
        *(f"Only trials {condition}." for condition in selection.conditions),
        f"Written by: {shlex.join(command)}",
        f"Train one:  python -m memmeta train {shlex.quote(path.name)} --rank 1",
    ]
    content = (_json if path.suffix.lower() == ".json" else _yaml)(export, about)
    if path.is_dir():
        raise InputError(f"{path}: cannot be written (a folder)")
    try:
        with files.whole(path) as file:
            file.write(content.encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def _json(export: Export, about: list[str]) -> str:
    values = export.model_copy(update={"about": about}).model_dump()
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def _yaml(export: Export, about: list[str]) -> str:
    header = "".join(f"# {line}\n" for text in about for line in text.splitlines())
    values = export.model_dump(exclude={"about"})
    return header + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _selected(sweep: Sweep, selection: Selection) -> list[Trial]:
    trials = sweep.complete
    if selection.max_memory is not None:
        trials = _within(sweep, selection.max_memory)
    if selection.pareto:
        # By increasing memory, and so from the worst metric on.
        trials = front(trials)[::-1]
    if not trials:
        raise InputError(f"{sweep.name}: no trial to export whose peak memory was measured")
    best_of_each: dict[RunConfig, Trial] = {}
    for trial in trials:
        best_of_each.setdefault(without_seed(trial), trial)
    return list(best_of_each.values())[: selection.top]


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
