"""The trials of a sweep in one CSV file, from which every figure can be drawn again."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from analysis.records.csv_text import csv_text, original
from analysis.records.trials import Sweep, Trial, ordered
from memmeta.config import (
    RECORD_VERSION,
    Config,
    DataConfig,
    LearnerConfig,
    RunConfig,
    TrainingConfig,
    check_version,
    completed,
    parse,
)
from memmeta.errors import InputError, shown
from memmeta.system import files
from sweeps.engine.study.dimension import Grid, Space
from sweeps.engine.study.outcome import Stage

_FACTS = [field.name for field in dataclasses.fields(Trial) if field.name != "config"]

_SECTIONS: Mapping[str, type[Config]] = {
    "data": DataConfig,
    "learner": LearnerConfig,
    "training": TrainingConfig,
}
"""Sections of a config. Their fields have different names, so that each is a column of its name;
only the name of the data set is in column `dataset`."""

_IN_CONFIG = ("data", "learner", "training", "seed")
"""Settings of a stage that are in the columns of the config."""

_BOUNDED = ("value", "val_interval", "test_value", "test_interval", "seconds_per_step", "seconds")
_POSITIVE = ("peak_memory_bytes", "seconds_per_step")
"""What analyses count on in a complete trial, where it is there: they take logarithms of some."""

_LARGEST = 1e100
"""Sums of squares of such numbers are finite."""


class _StageSettings(Config):
    """What `Study.settings` has besides the config."""

    space: Space = Field(default_factory=dict)
    objective: Sequence[str] = ()
    memory_limit: int | None = None
    tuned: Grid = Field(default_factory=dict)
    tuning: TrainingConfig | None = None


def write_trials(sweep: Sweep, path: Path) -> None:
    """Write `sweep` as a CSV file, a line a trial: its settings, its results, its space.

    Raises:
        InputError: the file cannot be written.
    """
    text = csv_text(_record(trial, sweep) for trial in sweep.trials)
    try:
        with files.whole(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def read_trials(path: Path) -> Sweep:
    """Read what `write_trials` wrote, now or in an earlier version.

    Raises:
        InputError: the file cannot be read, has no trials, or a value in it is not accepted.
    """
    try:
        # A spreadsheet that saved the file may have begun it with a byte-order mark.
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
        with _fields_of(len(text)):  # a large space is one long field
            records = list(csv.DictReader(io.StringIO(text, newline="")))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path}: not a CSV file") from None
    if not records:
        raise InputError(f"{path}: has no trials")
    trials: list[Trial] = []
    settings: dict[Stage, dict[str, Any]] = {}
    try:
        for number, record in enumerate(records, 2):
            source = f"{path} (line {number})"
            # What csv has for a field too many, and for one too few.
            if None in record or None in record.values():
                raise InputError(f"{source}: has not as many fields as the first line")
            record = _as_written(record, source)
            trials.append(_trial(record, source))
            if trials[-1].stage not in settings:
                settings[trials[-1].stage] = _settings(record["stage_settings"], source)
            study, name = record["study"], record["sweep"]
    except KeyError as error:
        raise InputError(f"{path}: not a table of trials (no column {error.args[0]})") from None
    return Sweep(study, name, ordered(trials), settings, others=())


@contextmanager
def _fields_of(characters: int) -> Iterator[None]:
    """Let csv read fields of so many characters."""
    usual = csv.field_size_limit()
    csv.field_size_limit(max(characters, usual))
    try:
        yield
    finally:
        csv.field_size_limit(usual)


def _record(trial: Trial, sweep: Sweep) -> dict[str, Any]:
    settings = sweep.settings.get(trial.stage, {})
    own = {name: value for name, value in settings.items() if name not in _IN_CONFIG}
    facts = {name: getattr(trial, name) for name in _FACTS}
    return {
        "version": RECORD_VERSION,
        "study": sweep.study,
        "sweep": sweep.name,
        **facts,
        **_settings_of(trial.config),
        "stage_settings": json.dumps(own),
    }


def _as_written(record: Mapping[str, str], source: str) -> Mapping[str, str]:
    """The record with its original text."""
    cell = record.get("version", "1")
    check_version({"version": int(cell) if cell.isdecimal() and len(cell) < 10 else cell}, source)
    # Version 1 wrote text as it is.
    return record if cell == "1" else {name: original(text) for name, text in record.items()}


def _trial(record: Mapping[str, str], source: str) -> Trial:
    config = parse(RunConfig, _config(record), source)
    # An older table lacks later facts.
    facts: dict[str, Any] = {name: record.get(name) or None for name in _FACTS}
    facts |= {"config": config, "run_name": record["run_name"]}
    try:
        trial = TypeAdapter(Trial).validate_python(facts)
    except ValidationError as error:
        problem = error.errors()[0]
        raise InputError(f"{source}: {problem['loc'][0]}: {problem['msg'].lower()}") from None
    if trial.status == "complete":
        _check_complete(trial, source)
    return trial


def _check_complete(trial: Trial, source: str) -> None:
    if trial.value is None:
        raise InputError(f"{source}: value: a complete trial has one")
    for names, accepted, holds in (
        (_BOUNDED, f"a finite number up to {_LARGEST:g}", lambda n: abs(n) <= _LARGEST),
        (_POSITIVE, "a number above 0", lambda number: number > 0),
    ):
        for name in names:
            number = getattr(trial, name)
            if number is not None and not holds(number):
                raise InputError(f"{source}: {name}: {accepted} is accepted, got {number}")


def _settings(text: str, source: str) -> dict[str, Any]:
    """The settings of a stage, as they are written."""
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{source}: stage_settings: not JSON") from None
    if not isinstance(settings, dict):
        raise InputError(f"{source}: stage_settings: an object is accepted, got {shown(text)}")
    parse(_StageSettings, settings, f"{source}: stage_settings")
    return settings


def _settings_of(config: RunConfig) -> dict[str, Any]:
    """All settings as they were given, None too: a missing column means a later field."""
    sections = (getattr(config, section).model_dump() for section in _SECTIONS)
    settings = {name: value for section in sections for name, value in section.items()}
    return {"dataset": settings.pop("name"), **settings, "seed": config.seed}


def _config(record: Mapping[str, str]) -> dict[str, Any]:
    """The sections of a config: `_settings_of` undone."""
    cells = {"name": record["dataset"], **record}
    sections = {
        section: {name: cells[name] or None for name in model.model_fields if name in cells}
        for section, model in _SECTIONS.items()
    }
    values: dict[str, Any] = completed(RunConfig, {**sections, "seed": record["seed"]})
    return values
