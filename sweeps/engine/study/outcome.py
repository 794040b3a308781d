"""What a trial ends with, and the words for it that the ledger and MLflow share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Stage = Literal["explore", "search", "confirm", "tune", "grid"]
"""What a trial is for. `explore`: a point of a space-filling design, for sensitivity. `search`: a
proposal of the optimiser, for the best config. `confirm`: one of the best configs with a fresh
seed, for what is reported. `tune`: values tried in a cell of a factorial study, which is given the
best of them. `grid`: such a cell. No statistic mixes them."""

Status = Literal[
    "running", "interrupted", "complete", "pruned", "diverged", "out_of_memory", "failed"
]
"""Of a trial. `complete`, `pruned` (stopped early), `diverged` and `out_of_memory` are results;
`failed` is a bug, and `interrupted` waits for the sweep to go on."""

INFEASIBLE = ("diverged", "out_of_memory")
"""Statuses that say: not with these hyperparameters."""

FINAL = ("complete", "pruned", *INFEASIBLE)
"""Statuses of a trial that never runs again."""

SAVED = "saved"
"""Not of a trial, but of what its worker says: it has saved itself and no news, since the sweep is
about to stop."""


@dataclass(frozen=True)
class Tags:
    """Names of the tags on MLflow runs."""

    kind: str = "memmeta.kind"
    """`sweep` for a parent run, `trial` for its children."""
    parent: str = "mlflow.parentRunId"
    """On a trial: the run of its sweep. The name is MLflow's."""
    study: str = "memmeta.study"
    """The study's name."""
    sweep: str = "memmeta.sweep"
    """The study with budget, seed and version: the name of the sweep's folder. A
    second sweep of that name in an experiment gets #2 after it, and so on."""
    identity: str = "memmeta.sweep_id"
    """The identity in the sweep's folder, by which the sweep finds its runs."""
    sequence: str = "memmeta.sequence"
    """On a sweep: counts up in the store whenever a sweep starts or ends."""
    settings: str = "memmeta.settings"
    """On a sweep: `Study.settings` of its stages as JSON, the space among them."""
    stage: str = "memmeta.stage"
    """On a trial: a `Stage`."""
    index: str = "memmeta.index"
    """On a trial: its place in its stage, from 0; it does not change when a sweep goes on."""
    key: str = "memmeta.trial_key"
    """On a trial: its `RunConfig.key`, which names its checkpoints."""
    config: str = "memmeta.config"
    """The whole `RunConfig` as JSON."""
    status: str = "memmeta.status"
    """A `Status`."""
    reports: str = "memmeta.reports"
    """On a trial: how many of its validations are in MLflow."""
    message: str = "memmeta.message"
    """Of a trial that did not end well: why. Of another one: what to know of its numbers."""
    commit: str = "memmeta.commit"
    """Of this code."""
    hardware: str = "memmeta.hardware"
    """Of the worker."""
    threads: str = "memmeta.threads"
    """CPU threads of the worker."""
    gpus: str = "memmeta.gpus"
    """The share of a GPU that the worker had, or 0."""
    data_digest: str = "memmeta.data_digest"
    """SHA-256 of the data set."""


TAGS = Tags()


FACTS = (
    "status", "message", "step", "metrics", "reports", "peak_memory_bytes",
    "predicted_memory_bytes", "reserved_memory_bytes", "seconds_per_step", "seconds",
    "commit", "hardware", "threads", "gpus", "data_digest", "notes",
)  # fmt: skip
"""What a result says of a trial."""


def outcome(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the trainable said, without what Tune adds to it."""
    return {name: result[name] for name in FACTS if name in result}
