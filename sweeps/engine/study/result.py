"""The result of a trial.

A worker reports it, the ledger stores it as JSON and the tracker sends it to MLflow. The keys are
part of the stored record: add keys, but do not rename them.
"""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict, cast

from memmeta.metric import Metric
from sweeps.engine.study.outcome import Status


class Validation(TypedDict):
    """One validation during a trial."""

    step: int
    """Outer steps so far."""
    time: float
    """Unix time in seconds."""
    metrics: dict[str, float]


class TrialResult(TypedDict):
    """The state of a trial. Results of older versions lack the keys that were added since.

    A trial that was refused before it reached a worker has no `commit`, `hardware`, `threads`,
    `gpus`, `data_digest` and `notes`.
    """

    status: Status
    message: NotRequired[str]
    """Why the trial did not complete, or a warning about the numbers of a complete one."""
    step: int
    """Outer steps so far."""
    metrics: dict[str, float]
    """Metrics of the last validation; in stage confirm also those on test tasks (`score_keys`)."""
    reports: list[Validation]
    """All validations so far."""
    peak_memory_bytes: int | None
    """Measured peak of a training step."""
    predicted_memory_bytes: NotRequired[int]
    """Predicted peak of a training step."""
    reserved_memory_bytes: NotRequired[int]
    """Device memory that was set aside for the worker process."""
    seconds_per_step: NotRequired[float | None]
    seconds: NotRequired[float]
    """Time that workers spent on the trial."""
    commit: NotRequired[str]
    """Commit of memmeta's code."""
    code: NotRequired[str]
    """Digest of the code of users that travelled with the sweep, if any did."""
    hardware: NotRequired[str]
    """Hardware of the worker."""
    threads: NotRequired[int]
    """CPU threads of the worker."""
    gpus: NotRequired[float]
    """The worker's share of a GPU; 0 on the CPU."""
    data_digest: NotRequired[str | None]
    """SHA-256 of the data set."""
    other_digests: NotRequired[dict[str, str]]
    """In stage confirm: the data sets of `Study.evaluate_on` that were scored, with their SHA-256.
    The metric is missing if it diverged."""
    notes: NotRequired[list[str]]
    """Events that the user should know about, such as a damaged checkpoint."""


def score_keys(metric: Metric, other: str | None = None) -> tuple[str, str]:
    """The keys of a metric on test tasks, and of the half-width of its interval.

    Args:
        metric: the metric.
        other: another data set than that of training.

    Examples:
        >>> from memmeta.metric import ACCURACY
        >>> score_keys(ACCURACY, "fc100")
        ('test_accuracy_fc100', 'test_interval_fc100')
    """
    suffix = f"_{other}" if other else ""
    return f"test_{metric.name}{suffix}", f"test_interval{suffix}"


def reported_result(report: Mapping[str, Any]) -> TrialResult:
    """Extract the result from a report that went through Tune, which adds keys to it."""
    fields = {name: report[name] for name in TrialResult.__annotations__ if name in report}
    return cast(TrialResult, fields)
