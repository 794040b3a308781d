"""MLflow stores, opened to be read: nothing is created in them, and nothing hangs."""

import logging
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from memmeta.errors import InputError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.store.entities import PagedList

T = TypeVar("T")

_ENVIRONMENT = {
    # By default MLflow asks a server that does not answer for many minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def find_runs(uri: str, query: str) -> "list[Run]":
    """All runs of all experiments that match `query`, the earliest begun first.

    Raises:
        InputError: there is no MLflow store at `uri`, or it cannot be read.
    """
    if uri.startswith("sqlite"):
        _check_database(uri)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Takes a second, and the environment has to be set before.
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        client = MlflowClient(uri)
        experiments = _all_pages(lambda token: client.search_experiments(page_token=token))
        ids = [experiment.experiment_id for experiment in experiments]
        order = ["attributes.start_time ASC"]
        return _all_pages(
            lambda token: client.search_runs(ids, query, order_by=order, page_token=token)
        )
    except (MlflowException, SQLAlchemyError, ImportError, OSError, ValueError) as error:
        raise _unreadable(uri, error) from None


def without_credentials(text: str) -> str:
    """`text` with the user and password cut out of every address in it."""
    return re.sub(r"(\w://)[^/\s]*@", r"\1", text)


def _all_pages(search: "Callable[[str | None], PagedList[T]]") -> list[T]:
    found: list[T] = []
    token = None
    while True:
        page = search(token)
        found += page
        token = page.token
        if not token:
            return found


def _check_database(uri: str) -> None:
    """Refuse a file that is not a store: MLflow would create it, or its tables in it."""
    path = Path(uri.partition(":///")[2].partition("?")[0])
    if not path.is_file():
        raise InputError(
            f"{path}: no such MLflow store; name the folder of the sweep with --storage, "
            "or its store with --tracking-uri"
        )
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            connection.execute("SELECT 1 FROM latest_metrics LIMIT 1")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise _unreadable(str(path), error) from None


def _unreadable(place: str, error: Exception) -> InputError:
    reason = (str(error) or type(error).__name__).strip().splitlines()[0]
    return InputError(without_credentials(f"{place}: cannot be read as an MLflow store ({reason})"))
