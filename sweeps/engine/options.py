"""How a study runs."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from memmeta.config import Config, parse
from memmeta.errors import InputError
from memmeta.system.files import resolved, usable_path
from memmeta.system.units import parse_size
from sweeps.engine.ledger.schedule import Choice
from sweeps.engine.stores.store import default_uri
from sweeps.engine.study.study import Study

Folder = Annotated[Path, BeforeValidator(usable_path), AfterValidator(resolved)]
"""A folder, with an absolute path: Ray changes directories."""

Count = Annotated[int, Field(ge=1)]


class Options(Config):
    """The options of `Study.run` and of the command line, except those that change the study."""

    stage: Choice
    """The stages to run."""
    data_root: Folder
    """Folder with the data sets."""
    cache: Folder | None
    """Folder for prepared data; None: `cache` in the data root."""
    seed: int = Field(ge=0, le=2**63)
    """Seed of the sweep: of the design, the sampler, and the trials of explore and search."""
    storage: Folder
    """Folder of all sweeps."""
    fresh: bool
    """Whether to start a new version of the sweep."""
    ledger: str | None
    """Database URL for the record of the sweep; None: a journal in the storage folder."""
    max_concurrent: Count | None
    """Maximum number of trials that run at once; None: no limit besides resources."""
    cpus_per_trial: Count
    """CPUs of a trial, which is also its number of threads."""
    memory_budget: Annotated[int, BeforeValidator(parse_size)] | None
    """Maximum device memory of a trial in bytes; None: the whole device."""
    tracking_uri: str
    """The MLflow store."""
    experiment: Annotated[str, Field(max_length=500)]
    """Name of the MLflow experiment."""


def options_for(
    study: Study,
    *,
    stage: str | None,
    fresh: bool,
    storage: str | Path,
    tracking_uri: str | None,
    experiment: str | None,
    **others: Any,
) -> Options:
    """The options for a study, with None replaced by the study's defaults.

    Args:
        study: the study.
        stage: default: `grid` if the study has a grid, else `all`.
        fresh: see `Options`.
        storage: see `Options`.
        tracking_uri: default: the environment variable MLFLOW_TRACKING_URI, else mlflow.db in the
            storage folder.
        experiment: default: the study's name.
        others: the other fields of `Options`.

    Raises:
        InputError: an option is not accepted, or does not go with the study.
    """
    stage = stage or ("grid" if study.grid else "all")
    if stage == "grid" and not study.grid:
        raise InputError("there is no grid: the study has none, and no option grid is given")
    if fresh and stage == "confirm":
        raise InputError("a fresh sweep has nothing to confirm yet: leave out fresh or the stage")
    values = {
        "stage": stage,
        "fresh": fresh,
        "storage": storage,
        "tracking_uri": tracking_store(storage, tracking_uri),
        "experiment": experiment or study.name,
    }
    return parse(Options, values | others, "options")


def tracking_store(storage: str | Path, tracking_uri: str | None) -> str:
    """The MLflow store to use: the given one, else MLFLOW_TRACKING_URI, else one in `storage`.

    Raises:
        InputError: the path of `storage` cannot hold a database.
    """
    # Checked even if it is not used: the summary compares the two.
    own = default_uri(Path(storage))
    return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or own
