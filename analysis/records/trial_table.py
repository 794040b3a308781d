"""The trials of a sweep as one CSV file, `trials.csv`, from which a report can be redrawn."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, TypeAdapter, ValidationError

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
    names,
    parse,
)
from memmeta.errors import InputError, cannot_read, shown
from memmeta.system.csv_text import csv_text, original
from memmeta.system.files import write_file
from sweeps.engine.study.dimension import Grid, Space
from sweeps.engine.study.outcome import Stage

if TYPE_CHECKING:
    import pandas as pd

_FACTS = [
    field.name for field in dataclasses.fields(Trial) if field.name not in ("config", "others")
]

_OTHER = {"test_value": "value", "test_interval": "interval", "data_digest": "data_digest"}
"""The columns of a score on another data set, and the fields of `OtherScore`. A column's name ends
with the name of the data set: `test_value_fc100`."""

_SECTIONS: Mapping[str, type[Config]] = {
    "data": DataConfig,
    "learner": LearnerConfig,
    "training": TrainingConfig,
}
"""Sections of a config. Field names are unique across them, so each field is a column of the same
name; only the name of the data set is in a column of another name, `dataset`."""

_IN_CONFIG = ("data", "learner", "training", "seed")
"""Stage settings that the config columns already hold."""

_BOUNDED = ("value", "val_interval", "test_value", "test_interval", "seconds_per_step", "seconds")
_POSITIVE = ("peak_memory_bytes", "seconds_per_step")
"""Results that must be positive in a complete trial, since analyses take their logarithms."""

_LARGEST = 1e100
"""Upper bound on results, which keeps sums of squares finite."""


class _StageSettings(Config):
    """The part of `Study.settings` that is not in the config."""

    space: Space = Field(default_factory=dict)
    objective: Sequence[str] = ()
    memory_limit: int | None = None
    tuned: Grid = Field(default_factory=dict)
    tuning: TrainingConfig | None = None


def trials_csv(sweep: Sweep) -> str:
    """Format the trials of `sweep` as CSV: one line per trial with its settings and results."""
    return csv_text(_record(trial, sweep) for trial in sweep.trials)


def write_trials(sweep: Sweep, path: Path) -> None:
    """Write the trials of `sweep` as CSV, as `trials_csv` formats them.

    Raises:
        InputError: the file cannot be written.
    """
    write_file(path, trials_csv(sweep).encode())


def data_frame(sweep: Sweep) -> "pd.DataFrame":
    """The trials of `sweep` with the columns of `write_trials`, and NaN for missing values.

    Two columns are left out: the version of the file, and the settings of the stage.
    """
    # Slow to import.
    import pandas as pd

    rows = pd.DataFrame([_record(trial, sweep) for trial in sweep.trials])
    rows = rows.drop(columns=["version", "stage_settings"])
    # A column without any value would hold None instead of NaN.
    return rows.astype(object).where(rows.notna(), float("nan")).infer_objects()


def read_trials(path: Path) -> Sweep:
    """Read a file that `write_trials` wrote, in this version or an earlier one.

    Raises:
        InputError: the file cannot be read, has no trials, or has a value that is not accepted.
    """
    records = _read_csv(path)
    if not records:
        raise InputError(f"{path}: has no trials")
    trials: list[Trial] = []
    settings: dict[Stage, dict[str, Any]] = {}
    try:
        for number, record in enumerate(records, 2):
            source = f"{path} (line {number})"
            # csv uses None as the name of surplus fields and as the value of missing ones.
            if None in record or None in record.values():
                raise InputError(f"{source}: does not have as many fields as the first line")
            cells = _unescaped(record, source)
            trials.append(_trial(cells, source))
            if trials[-1].stage not in settings:
                settings[trials[-1].stage] = _stage_settings(cells["stage_settings"], source)
            study, name = cells["study"], cells["sweep"]
    except KeyError as error:
        raise InputError(f"{path}: not a table of trials (no column {error.args[0]})") from None
    return Sweep(study, name, ordered(trials), settings, alternatives=())


def _read_csv(path: Path) -> list[dict[str, str]]:
    try:
        # utf-8-sig: a spreadsheet program may have saved the file with a byte-order mark.
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
        with _field_size_limit(len(text)):  # a large space is one long field
            return list(csv.DictReader(io.StringIO(text, newline="")))
    except OSError as error:
        raise cannot_read(path, error) from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path}: not a CSV file") from None


@contextmanager
def _field_size_limit(characters: int) -> Iterator[None]:
    """Raise csv's limit on the length of a field, if it is lower."""
    previous = csv.field_size_limit()
    csv.field_size_limit(max(characters, previous))
    try:
        yield
    finally:
        csv.field_size_limit(previous)


def _record(trial: Trial, sweep: Sweep) -> dict[str, Any]:
    settings = sweep.settings.get(trial.stage, {})
    not_in_config = {name: value for name, value in settings.items() if name not in _IN_CONFIG}
    facts = {name: getattr(trial, name) for name in _FACTS}
    return {
        "version": RECORD_VERSION,
        "study": sweep.study,
        "sweep": sweep.name,
        **facts,
        **_other_columns(trial, sweep.others),
        **_config_columns(trial.config),
        "stage_settings": json.dumps(not_in_config),
    }


def _unescaped(record: Mapping[str, str], source: str) -> Mapping[str, str]:
    """The record with its original text, after a check of its version."""
    cell = record.get("version", "1")
    check_version({"version": int(cell) if cell.isdecimal() and len(cell) < 10 else cell}, source)
    # Version 1 did not escape text.
    return record if cell == "1" else {name: original(text) for name, text in record.items()}


def _trial(record: Mapping[str, str], source: str) -> Trial:
    config = parse(RunConfig, _config_values(record), source)
    # A table of an older version lacks newer columns.
    facts: dict[str, Any] = {name: record.get(name) or None for name in _FACTS}
    facts |= {"config": config, "run_name": record["run_name"], "others": _other_scores(record)}
    try:
        trial = TypeAdapter(Trial).validate_python(facts)
    except ValidationError as error:
        problem = error.errors()[0]
        raise InputError(f"{source}: {problem['loc'][0]}: {problem['msg'].lower()}") from None
    if trial.status == "complete":
        _check_complete(trial, source)
    return trial


def _other_columns(trial: Trial, names: Iterable[str]) -> dict[str, Any]:
    """The scores on other data sets. Columns of data sets without a score are None."""
    return {
        f"{column}_{name}": getattr(trial.others.get(name), field, None)
        for name in names
        for column, field in _OTHER.items()
    }


def _other_scores(record: Mapping[str, str]) -> dict[str, dict[str, str | None]]:
    """The fields of the scores on other data sets, the inverse of `_other_columns`."""
    digest = "data_digest_"
    scored = [name.removeprefix(digest) for name in record if name.startswith(digest)]
    return {
        name: {field: record[f"{column}_{name}"] or None for column, field in _OTHER.items()}
        for name in scored
        if record[f"{digest}{name}"]
    }


def _check_complete(trial: Trial, source: str) -> None:
    if trial.value is None:
        raise InputError(f"{source}: value: is missing in a complete trial")
    numbers = {name: getattr(trial, name) for name in _BOUNDED}
    for other, score in trial.others.items():
        numbers |= {f"test_value_{other}": score.value, f"test_interval_{other}": score.interval}
    for name, number in numbers.items():
        if number is not None and not abs(number) <= _LARGEST:  # `not <=` refuses NaN, too
            accepted = f"a finite number up to {_LARGEST:g}"
            raise InputError(f"{source}: {name}: {accepted} is accepted, got {number}")
    for name in _POSITIVE:
        number = getattr(trial, name)
        if number is not None and number <= 0:
            raise InputError(f"{source}: {name}: a number above 0 is accepted, got {number}")


def _stage_settings(text: str, source: str) -> dict[str, Any]:
    """Parse the settings of a stage. They are checked, but returned as written."""
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{source}: stage_settings: not JSON") from None
    if not isinstance(settings, dict):
        raise InputError(f"{source}: stage_settings: an object is accepted, got {shown(text)}")
    parse(_StageSettings, settings, f"{source}: stage_settings")
    return settings


def _config_columns(config: RunConfig) -> dict[str, Any]:
    """All settings, including None: a missing column means that the field is newer."""
    sections = (getattr(config, section).model_dump() for section in _SECTIONS)
    settings = {
        name: json.dumps(value) if isinstance(value, dict) else value
        for section in sections
        for name, value in section.items()
    }
    return {"dataset": settings.pop("name"), **settings, "seed": config.seed}


def _config_values(record: Mapping[str, str]) -> dict[str, Any]:
    """The values of a config by section, the inverse of `_config_columns`."""
    cells = {"name": record["dataset"], **record}
    sections = {
        section: {name: cells[name] or None for name in names(model) if name in cells}
        for section, model in _SECTIONS.items()
    }
    values: dict[str, Any] = completed(RunConfig, {**sections, "seed": record["seed"]})
    return values
