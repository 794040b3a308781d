"""How a study is run."""

from dataclasses import dataclass
from pathlib import Path

from sweeps.engine.ledger.schedule import Choice


@dataclass(frozen=True)
class Options:
    """What the command line says besides the study."""

    stage: Choice
    """What is run of the study."""
    data_root: Path
    """Folder with the data sets."""
    cache: Path | None
    """Folder of their caches; None: in the data root."""
    seed: int
    """Of the sweep: of its design, its sampler and the trials of explore and search."""
    storage: Path
    """Folder of all sweeps."""
    fresh: bool
    """Whether to begin a new version of the sweep."""
    ledger: str | None
    """Database that keeps the record of the sweep; None: a journal in the storage folder."""
    max_concurrent: int | None
    """Trials that run at once; None: as many as there is room for."""
    cpus_per_trial: int
    """CPUs, and so threads, of a trial."""
    memory_budget: int | None
    """Bytes that a trial may take of its device; None: all of it."""
    tracking_uri: str
    """MLflow store."""
    experiment: str
    """MLflow experiment."""
