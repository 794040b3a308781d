"""The trials of a sweep in one CSV file, from which every figure can be drawn again."""

import csv
import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from analysis.trials import Sweep, Trial, ordered
from memmeta import files
from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig, parse
from memmeta.errors import InputError

_FACTS = [field.name for field in dataclasses.fields(Trial) if field.name != "config"]

_IN_CONFIG = ("data", "learner", "training", "seed")
"""Settings of a stage that are in the columns of the config."""


def write_trials(sweep: Sweep, path: Path) -> None:
    """Write `sweep` as a CSV file, a line a trial: its settings, its results, its space.

    Raises:
        InputError: the file cannot be written.
    """
    records = [_record(trial, sweep) for trial in sweep.trials]
    columns = list(dict.fromkeys(name for record in records for name in record))
    try:
        with files.whole(path) as file:
            file.write(_csv(columns, records).encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def read_trials(path: Path) -> Sweep:
    """Read what `write_trials` wrote.

    Raises:
        InputError: the file cannot be read, has no trials, or a value in it is not accepted.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            records = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path}: not a CSV file") from None
    if not records:
        raise InputError(f"{path}: has no trials")
    try:
        trials = [_trial(record, f"{path} (line {n})") for n, record in enumerate(records, 2)]
        stages = {record["stage"]: json.loads(record["stage_settings"]) for record in records}
        study, name = records[0]["study"], records[0]["sweep"]
    except KeyError as error:
        raise InputError(f"{path}: not a table of trials (no column {error.args[0]})") from None
    except json.JSONDecodeError:
        raise InputError(f"{path}: not a table of trials (stage_settings is not JSON)") from None
    return Sweep(study, name, ordered(trials), stages, others=())


def _record(trial: Trial, sweep: Sweep) -> dict[str, Any]:
    settings = sweep.settings.get(trial.stage, {})
    own = {name: value for name, value in settings.items() if name not in _IN_CONFIG}
    facts = {name: getattr(trial, name) for name in _FACTS}
    return {
        "study": sweep.study,
        "sweep": sweep.name,
        **facts,
        **trial.config.flat(),
        "stage_settings": json.dumps(own),
    }


def _csv(columns: list[str], records: list[dict[str, Any]]) -> str:
    text = io.StringIO(newline="")
    # Python before 3.13 does not quote a lone carriage return unless it quotes all text.
    writer = csv.DictWriter(
        text, columns, restval="", lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
    )
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _trial(record: Mapping[str, str], source: str) -> Trial:
    config = parse(RunConfig, _config(record), source)
    facts = {name: record[name] or None for name in _FACTS} | {"config": config}
    try:
        return TypeAdapter(Trial).validate_python(facts)
    except ValidationError as error:
        problem = error.errors()[0]
        raise InputError(f"{source}: {problem['loc'][0]}: {problem['msg'].lower()}") from None


def _config(record: Mapping[str, str]) -> dict[str, Any]:
    """The sections of a config, whose fields have different names: `RunConfig.flat` undone."""
    data = _section(record, DataConfig) | {"name": record["dataset"]}
    learner, training = _section(record, LearnerConfig), _section(record, TrainingConfig)
    return {"data": data, "learner": learner, "training": training, "seed": record["seed"]}


def _section(record: Mapping[str, str], model: type) -> dict[str, str]:
    names = model.model_fields  # type: ignore[attr-defined]
    return {name: record[name] for name in names if record.get(name)}
