"""Conversion of trials to MLflow's metrics, params and tags."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from memmeta.errors import InputError
from memmeta.system.units import MIB
from sweeps.engine.ledger.entry import Entry, Slot
from sweeps.engine.study.outcome import TAGS, Stage
from sweeps.engine.study.result import TrialResult, Validation
from sweeps.engine.tracking.notes import NOTE_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run

_LONGEST_TAG = 5000
"""Maximum length of a tag that every MLflow store accepts."""

_TAGS = {
    "message": TAGS.message,
    "commit": TAGS.commit,
    "code": TAGS.code,
    "hardware": TAGS.hardware,
    "threads": TAGS.threads,
    "gpus": TAGS.gpus,
    "data_digest": TAGS.data_digest,
}
_TEST = "test_"
"""Prefix of the metrics on test tasks."""

"""Fields of a result that are logged as tags, and the tags' names."""


class SentTrial(NamedTuple):
    """The state of a trial in MLflow."""

    run_id: str
    status: str
    """`TAGS.status`, or `running` while the run itself is running in MLflow."""
    reports: int
    """Number of validations in MLflow."""
    has_note: bool
    """Whether the run has a description, by memmeta or by a user."""
    score_names: frozenset[str] = frozenset()
    """Names of the metrics on test tasks in MLflow."""


def sent_trial(run: "Run") -> tuple[Slot, SentTrial]:
    """The slot and the state of a trial, from its MLflow run.

    Raises:
        InputError: somebody removed or changed a tag.
    """
    tags = run.data.tags
    try:
        status = tags[TAGS.status]
        slot = Slot(cast(Stage, tags[TAGS.stage]), int(tags[TAGS.index]))
        reports = int(tags[TAGS.reports])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"MLflow run {run.info.run_id}: a tag of memmeta was changed ({error}). Delete the run "
            "in MLflow, and the same command writes it again"
        ) from None
    if run.info.status == "RUNNING":
        # A driver was killed between writing the run's status and the tag.
        status = "running"
    score_names = frozenset(name for name in run.data.metrics if name.startswith(_TEST))
    return slot, SentTrial(run.info.run_id, status, reports, NOTE_TAG in tags, score_names)


def unsent_batch(entry: Entry, sent: SentTrial) -> dict[str, Any]:
    """The part of a trial that MLflow lacks, as the arguments of `log_batch`."""
    from mlflow.entities import Metric, Param, RunTag

    tags = {TAGS.status: entry.status, TAGS.reports: str(report_count(entry))}
    params = {} if sent.reports else entry.run.flat()
    metrics = []
    if entry.result:
        result = entry.result
        values: Mapping[str, object] = result
        totals: Validation = {"time": 0.0, "step": 0, "metrics": _totals(result)}
        if result["reports"]:
            # With time and step of the last validation, sending the totals again adds no points.
            last = result["reports"][-1]
            totals = {**totals, "time": last["time"], "step": last["step"]}
        metrics = [
            Metric(name, value, milliseconds(report), report["step"])
            for report in [*result["reports"][sent.reports :], totals]
            for name, value in report["metrics"].items()
        ]
        tags |= {
            tag: str(values[field])[-_LONGEST_TAG:]
            for field, tag in _TAGS.items()
            if field in values
        }
        if "other_digests" in result:
            tags[TAGS.other_digests] = json.dumps(result["other_digests"])
    return {
        "metrics": metrics,
        "params": [Param(name, str(value)) for name, value in params.items()],
        "tags": [RunTag(name, value) for name, value in tags.items()],
    }


def report_count(entry: Entry) -> int:
    """Number of validations of a trial."""
    return len(entry.result["reports"]) if entry.result else 0


def score_names(entry: Entry) -> frozenset[str]:
    """Names of the metrics of a trial on test tasks."""
    metrics = entry.result["metrics"] if entry.result else {}
    return frozenset(name for name in metrics if name.startswith(_TEST))


def milliseconds(report: Validation) -> int:
    """The time of a validation in Unix milliseconds, as MLflow stores it."""
    return int(1000 * report["time"])


def _totals(result: TrialResult) -> dict[str, float]:
    """The values that a trial has once, by their MLflow metric names."""
    totals: dict[str, float | None] = {
        "peak_memory_mib": _in_mib(result.get("peak_memory_bytes")),
        "predicted_memory_mib": _in_mib(result.get("predicted_memory_bytes")),
        "reserved_memory_mib": _in_mib(result.get("reserved_memory_bytes")),
        "seconds_per_step": result.get("seconds_per_step"),
        "seconds": result.get("seconds"),
    }
    totals |= {k: v for k, v in result["metrics"].items() if k.startswith(_TEST)}
    return {name: value for name, value in totals.items() if value is not None}


def _in_mib(size: int | None) -> float | None:
    return None if size is None else size / MIB
