"""The stages and statuses of trials, and the names of MLflow tags."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Stage = Literal["explore", "search", "confirm", "tune", "grid"]
"""The purpose of a trial.

- `explore`: a point of a space-filling design, for sensitivity analysis.
- `search`: a proposal of the optimiser.
- `confirm`: one of the best configs, trained again with a fresh seed, for reported numbers.
- `tune`: one of the values tried in a cell of a factorial design. The cell uses the best of them.
- `grid`: a cell of a factorial design.

Stages are analysed separately, except that `explore` and `search` are ranked together, since their
trials share one training seed.
"""

Status = Literal[
    "running", "interrupted", "complete", "pruned", "diverged", "out_of_memory", "failed"
]
"""The status of a trial. `complete`, `pruned` (stopped early), `diverged` and `out_of_memory` are
final. `failed` means a bug. `interrupted` trials run again when the sweep continues."""

INFEASIBLE: tuple[Status, ...] = ("diverged", "out_of_memory")
"""Statuses of trials whose hyperparameters do not work."""

FINAL: tuple[Status, ...] = ("complete", "pruned", *INFEASIBLE)
"""Statuses of trials that never run again."""


@dataclass(frozen=True)
class Tags:
    """Names of the tags on MLflow runs."""

    kind: str = "memmeta.kind"
    """`sweep` for a parent run, `trial` for its children."""
    parent: str = "mlflow.parentRunId"
    """On a trial: the run of its sweep. The name is MLflow's."""
    study: str = "memmeta.study"
    """Name of the study."""
    sweep: str = "memmeta.sweep"
    """Name of the sweep's folder: study, budget, seed and version. A second sweep of the same name
    in an experiment gets the suffix #2, a third one #3, and so on."""
    identity: str = "memmeta.sweep_id"
    """Unique id from the sweep's folder. The sweep finds its runs by it."""
    sequence: str = "memmeta.sequence"
    """On a sweep: a counter in the store that increases whenever a sweep starts or ends."""
    settings: str = "memmeta.settings"
    """On a sweep: `Study.settings` of its stages as JSON, including the space."""
    best: str = "memmeta.best"
    """On a sweep: name and params of the best trial of explore and search, as JSON."""
    planned: str = "memmeta.planned_trials"
    """On a sweep: how many trials it has when it is finished."""
    stage: str = "memmeta.stage"
    """On a trial: its `Stage`."""
    index: str = "memmeta.index"
    """On a trial: its index in its stage, from 0. It stays the same when a sweep continues."""
    key: str = "memmeta.trial_key"
    """On a trial: its `RunConfig.key`, which is the name of its checkpoint folder."""
    config: str = "memmeta.config"
    """The whole `RunConfig` as JSON."""
    status: str = "memmeta.status"
    """The `Status` of a trial."""
    reports: str = "memmeta.reports"
    """On a trial: how many of its validations are in MLflow."""
    message: str = "memmeta.message"
    """`TrialResult.message`."""
    commit: str = "memmeta.commit"
    """Commit of memmeta's code."""
    code: str = "memmeta.code"
    """On a trial: digest of the code of users that it ran, a folder in `code` in the sweep's."""
    hardware: str = "memmeta.hardware"
    """Hardware of the worker."""
    threads: str = "memmeta.threads"
    """CPU threads of the worker."""
    gpus: str = "memmeta.gpus"
    """The worker's share of a GPU; 0 on the CPU."""
    data_digest: str = "memmeta.data_digest"
    """SHA-256 of the data set."""
    other_digests: str = "memmeta.other_digests"
    """`TrialResult.other_digests` as JSON."""


TAGS = Tags()


def sequence(tags: Mapping[str, str]) -> int:
    """The sequence number in the tags of a sweep's run; 0 if it has none, or not a number."""
    text = tags.get(TAGS.sequence, "")
    return int(text) if text.isdecimal() and len(text) < 16 else 0
