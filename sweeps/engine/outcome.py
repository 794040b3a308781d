"""What a trial ends with, and the words for it that the ledger and MLflow share."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Status = Literal["running", "interrupted", "complete", "diverged", "out_of_memory", "failed"]
"""Of a trial. `diverged` and `out_of_memory` are results; `failed` is a bug or a lost machine, and
`interrupted` waits for the sweep to go on."""

INFEASIBLE = ("diverged", "out_of_memory")
"""Statuses that say: not with these hyperparameters."""


class Tags(NamedTuple):
    """Names of the tags on MLflow runs."""

    kind: str = "memmeta.kind"
    """`sweep` for a parent run, `trial` for its children."""
    study: str = "memmeta.study"
    """The study's name."""
    sweep: str = "memmeta.sweep"
    """The study with budget and seed, as `Study.sweep_name` has it."""
    settings: str = "memmeta.settings"
    """On a sweep: `Study.settings` as JSON, the space among them."""
    number: str = "memmeta.trial_number"
    """On a trial: its number in the ledger when it was begun."""
    key: str = "memmeta.trial_key"
    """The run's `RunConfig.key`."""
    config: str = "memmeta.config"
    """The whole `RunConfig` as JSON."""
    status: str = "memmeta.status"
    """A `Status`."""
    commit: str = "memmeta.commit"
    """Of this code."""
    hardware: str = "memmeta.hardware"
    """Of the worker."""
    threads: str = "memmeta.threads"
    """CPU threads of the worker."""
    data_digest: str = "memmeta.data_digest"
    """SHA-256 of the data set."""


TAGS = Tags()


FACTS = (
    "status", "step", "metrics", "message", "peak_memory_bytes", "seconds_per_step",
    "commit", "hardware", "threads", "data_digest",
)  # fmt: skip


def outcome(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the trainable said, without what Tune adds to it."""
    return {name: result[name] for name in FACTS if name in result}
