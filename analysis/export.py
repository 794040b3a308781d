"""Export the best configs of a study as a file for `memmeta train`."""

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from analysis.formatting import mebibytes
from analysis.records.trials import RANKED, Sweep, Trial
from analysis.statistics.confirmed import confirmed_results, predict_fresh_seed, without_seed
from analysis.statistics.pareto import front
from memmeta.config import RECORD_VERSION, RunConfig, parse
from memmeta.errors import InputError
from memmeta.exported import Export, ExportedRun
from memmeta.system.files import write_file
from memmeta.system.units import exact_size

TOP = 3
"""Default number of exported configs."""

SUFFIXES = (".yaml", ".yml", ".json")
"""Accepted suffixes of the output file; `.json` selects JSON, the others YAML."""


@dataclass(frozen=True)
class Selection:
    """Selection from the complete trials of explore and search, from best to worst."""

    top: int | None = None
    """Maximum number of configs; None for all."""
    max_memory: int | None = None
    """Upper bound on the measured peak memory in bytes; None for no bound."""
    pareto: bool = False
    """Whether to select only the Pareto front of metric and peak memory."""

    @property
    def conditions(self) -> list[str]:
        """The conditions on trials in words."""
        limit = self.max_memory
        return [
            *(["on the Pareto front with peak memory"] if self.pareto else []),
            *([] if limit is None else [f"with a peak memory of at most {_size(limit)}"]),
        ]

    @property
    def options(self) -> list[str]:
        """The selection as command-line options."""
        return [
            *([] if self.top is None else ["--top", str(self.top)]),
            *([] if self.max_memory is None else ["--max-memory", exact_size(self.max_memory)]),
            *(["--pareto"] if self.pareto else []),
        ]


def export_best(
    sweep: Sweep,
    selection: Selection,
    path: Path,
    store: Iterable[str],
    say: Callable[[str], None],
) -> None:
    """Write the selected configs of a sweep to a file for `memmeta train`.

    Args:
        sweep: the sweep.
        selection: which configs.
        path: output file; an existing file is replaced.
        store: command-line options that name the sweep's store, for the command in the file.
        say: called with a line if there are fewer configs than asked for.

    Raises:
        InputError: no trial meets the selection, or the file cannot be written.
    """
    check_suffix(path)
    best = best_runs(sweep, selection)
    options = [*selection.options, "--out", str(path), *store]
    write(best, sweep, selection, path, ["memmeta", "export", sweep.name, *options])
    if selection.top and len(best.runs) < selection.top:
        conditions = "".join(f", {condition}," for condition in selection.conditions)
        count = f"only {len(best.runs)} different configs of explore and search"
        say(f"complete trials{conditions} of {sweep.name}: {count}")


def best_runs(sweep: Sweep, selection: Selection) -> Export:
    """The selected configs of a sweep with their results; each config appears once.

    Raises:
        InputError: no trial meets the selection.
    """
    candidates = sweep.trials_in(*RANKED)
    if not candidates:
        others = _counts(trial.stage for trial in sweep.trials)
        raise InputError(f"{sweep.name}: no explore or search trials to export ({others})")
    if not sweep.ranking:
        others = _counts(trial.status.replace("_", " ") for trial in candidates)
        raise InputError(f"{sweep.name}: no complete explore or search trial to export ({others})")
    runs = [_exported(trial, sweep) for trial in _selected(sweep, selection)]
    return Export(version=RECORD_VERSION, study=sweep.study, runs=runs)


def check_suffix(path: Path) -> None:
    """Refuse an output file whose name does not determine its format.

    Raises:
        InputError: the suffix is not in `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: the name must end in {', '.join(SUFFIXES)}")


def write(
    export: Export, sweep: Sweep, selection: Selection, path: Path, command: list[str]
) -> None:
    """Write `export` to `path`, either completely or not at all.

    Args:
        export: the configs with their results.
        sweep: the sweep that they are from, named in the file.
        selection: how they were selected, stated in the file.
        path: output file; an existing file is replaced.
        command: the command line of the export, stated in the file.

    Raises:
        InputError: the file cannot be written, or its suffix is not in `SUFFIXES`.
    """
    check_suffix(path)
    metric = export.runs[0].config.data.metric.title
    about = [
        f"The best {len(export.runs)} of the configs of {len(sweep.trials_in(*RANKED))} explore "
        f"and search trials of {sweep.name},",
        f"by {metric} on the validation tasks.",
        *(f"Only trials {condition}." for condition in selection.conditions),
        f"Written by: {shlex.join(command)}",
        f"Train one:  memmeta train {shlex.quote(path.name)} --rank 1",
    ]
    content = (_json if path.suffix.lower() == ".json" else _yaml)(export, about)
    write_file(path, content.encode())


def _json(export: Export, about: list[str]) -> str:
    values = export.model_copy(update={"about": about}).model_dump()
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def _yaml(export: Export, about: list[str]) -> str:
    header = "".join(f"# {line}\n" for text in about for line in text.splitlines())
    values = export.model_dump(exclude={"about"})
    return header + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _selected(sweep: Sweep, selection: Selection) -> list[Trial]:
    trials = sweep.ranking
    if selection.max_memory is not None:
        trials = _within(sweep, selection.max_memory)
    if selection.pareto:
        # A front is sorted by increasing memory, that is from worst to best metric.
        trials = front(trials)[::-1]
    if not trials:
        raise InputError(f"{sweep.name}: no trial to export has a measured peak memory")
    best_of_each: dict[RunConfig, Trial] = {}
    for trial in trials:
        best_of_each.setdefault(without_seed(trial), trial)
    return list(best_of_each.values())[: selection.top]


def _within(sweep: Sweep, limit: int) -> tuple[Trial, ...]:
    """The ranked trials whose measured peak memory is at most `limit` bytes."""
    peaks = [t.peak_memory_bytes for t in sweep.ranking if t.peak_memory_bytes is not None]
    if peaks and limit < min(peaks):
        raise InputError(
            f"{sweep.name}: no complete explore or search trial within {_size(limit)} of peak "
            f"memory; the smallest is {_size(min(peaks))}"
        )
    return tuple(
        trial
        for trial in sweep.ranking
        if trial.peak_memory_bytes is not None and trial.peak_memory_bytes <= limit
    )


def _size(count: int) -> str:
    return f"{count:,} bytes ({mebibytes(count)} MiB)"


def _counts(words: Iterable[str]) -> str:
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
                "confirmed": confirmed_results(trial, sweep),
                "fresh_seed": predict_fresh_seed(trial, sweep),
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
