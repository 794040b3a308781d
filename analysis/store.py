"""MLflow stores: read, and given reports. A store that is not there is not created."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from memmeta.errors import InputError
from sweeps.engine.store import all_pages, check_database, connect, database_file, explained

if TYPE_CHECKING:
    from mlflow.entities import Run


def find_runs(uri: str, query: str) -> "list[Run]":
    """All runs of all experiments that match `query`, the earliest begun first.

    Raises:
        InputError: there is no MLflow store at `uri`, or it cannot be read.
    """
    with explained(uri):
        path = database_file(uri)
        if path is not None:
            _check_database(path)
        client = connect(uri)
        experiments = all_pages(lambda token: client.search_experiments(page_token=token))
        ids = [experiment.experiment_id for experiment in experiments]
        order = ["attributes.start_time ASC"]
        return all_pages(
            lambda token: client.search_runs(ids, query, order_by=order, page_token=token)
        )


def attach(uri: str, run_id: str, folder: Path, paths: Iterable[Path]) -> None:
    """Add files in `folder` to a run's artifacts, under `report`.

    Raises:
        InputError: the store cannot be reached, or takes no files.
    """
    with explained(uri):
        client = connect(uri)
        for path in paths:
            place = "report" / path.relative_to(folder).parent
            client.log_artifact(run_id, str(path), place.as_posix())


def _check_database(path: Path) -> None:
    """Refuse a file that is not a store: MLflow would create it, or its tables in it."""
    if not path.is_file():
        raise InputError(
            f"{path}: no such MLflow store; name the folder of the sweep with --storage, "
            "or its store with --tracking-uri"
        )
    check_database(path)
