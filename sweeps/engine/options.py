"""How a study runs."""

from dataclasses import dataclass
from pathlib import Path

from sweeps.engine.ledger.schedule import Choice


@dataclass(frozen=True)
class Options:
    """The options of the command line, except those that change the study."""

    stage: Choice
    """The stages to run."""
    data_root: Path
    """Folder with the data sets."""
    cache: Path | None
    """Folder for prepared data; None: `cache` in the data root."""
    seed: int
    """Seed of the sweep: of the design, the sampler, and the trials of explore and search."""
    storage: Path
    """Folder of all sweeps."""
    fresh: bool
    """Whether to start a new version of the sweep."""
    ledger: str | None
    """Database URL for the record of the sweep; None: a journal in the storage folder."""
    max_concurrent: int | None
    """Maximum number of trials that run at once; None: no limit besides resources."""
    cpus_per_trial: int
    """CPUs of a trial, which is also its number of threads."""
    memory_budget: int | None
    """Maximum device memory of a trial in bytes; None: the whole device."""
    tracking_uri: str
    """The MLflow store."""
    experiment: str
    """Name of the MLflow experiment."""
