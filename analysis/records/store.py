"""Read runs from an MLflow store and attach files to them. Never creates a store."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from memmeta.errors import InputError
from sweeps.engine.stores import artifacts
from sweeps.engine.stores.store import (
    check_database,
    connect,
    database_file,
    store_errors_in_one_line,
)
from sweeps.engine.stores.store import find_runs as find_runs_of

if TYPE_CHECKING:
    from mlflow.entities import Run


def find_runs(uri: str, query: str) -> "list[Run]":
    """Find the runs of all experiments that match an MLflow filter.

    Raises:
        InputError: no MLflow store exists at `uri`, or it cannot be read.
    """
    with store_errors_in_one_line(uri):
        path = database_file(uri)
        if path is not None:
            _check_database(path)
        return find_runs_of(connect(uri), query)


def attach(uri: str, run_id: str, folder: Path, paths: Iterable[Path]) -> None:
    """Upload files in `folder` to a run's artifacts, under `report/`.

    If the storage folder was moved or copied, the files go to its new location.

    Args:
        uri: the store.
        run_id: the run.
        folder: the folder that contains the files.
        paths: the files; their folders below `folder` are kept.

    Raises:
        InputError: the store cannot be reached or does not accept files.
    """
    with store_errors_in_one_line(uri):
        artifacts.follow(uri)
        run = connect(uri).get_run(run_id)
        # Slow to import. Reads the environment, so it must come inside `store_errors_in_one_line`.
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        # A client would use its cached, old artifact location.
        repository = get_artifact_repository(run.info.artifact_uri, tracking_uri=uri)
        for path in paths:
            subfolder = "report" / path.relative_to(folder).parent
            repository.log_artifact(str(path), subfolder.as_posix())


def _check_database(path: Path) -> None:
    """Refuse a missing or foreign file, in which MLflow would create its tables."""
    if not path.is_file():
        raise InputError(
            f"{path}: no such MLflow store: no sweep has run here. Name the storage folder of "
            "the sweep or its store (option storage or tracking-uri)"
        )
    check_database(path)
