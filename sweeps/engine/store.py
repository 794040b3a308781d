"""MLflow stores: where they are, and how they are opened without noise or long waits."""

import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from memmeta.errors import InputError
from memmeta.files import whole

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.entities import PagedList

T = TypeVar("T")

_ENVIRONMENT = {
    # By default MLflow asks a server that does not answer for many minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def default_uri(storage: Path) -> str:
    """The MLflow store in a storage folder, on an absolute path: Ray changes working folders.

    Raises:
        InputError: the path cannot be part of a database's address.
    """
    if "?" in str(storage):
        raise InputError(f"{storage}: a storage folder cannot have a ? in its name")
    return f"sqlite:///{storage.resolve()}/mlflow.db"


def database_file(uri: str) -> Path | None:
    """The file of the database at `uri`; None if that is no SQLite database."""
    if not uri.startswith("sqlite"):
        return None
    return Path(uri.partition(":///")[2].partition("?")[0])


def check_database(path: Path) -> None:
    """Read from the database of an MLflow store. MLflow itself would make its tables in any file.

    Raises:
        sqlite3.Error: it is no such database.
    """
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        connection.execute("SELECT 1 FROM latest_metrics LIMIT 1")
    finally:
        connection.close()


def make_database(uri: str) -> None:
    """Make the database of an MLflow store in a file that is not there yet, whole or not at all.

    MLflow makes its tables one after the other, and cannot use what a kill on the way left.
    """
    path = database_file(uri)
    if path is None or path.exists():
        return
    with whole(path) as file:
        connect(f"sqlite:///{file.name}").search_experiments(max_results=1)


def without_credentials(text: str) -> str:
    """`text` with the user and password cut out of every address in it."""
    text = re.sub(r"(\w://)[^/\s]*@", r"\1", text)
    return re.sub(r"([?&]\w*(?:pass|token|secret)\w*=)[^&\s]*", r"\1***", text, flags=re.IGNORECASE)


def connect(uri: str) -> "MlflowClient":
    """A client of the store at `uri`. What it does belongs under `explained`."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Takes a second, and the environment has to be set before.
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(uri)


def all_pages(search: "Callable[[str | None], PagedList[T]]") -> list[T]:
    """All that `search` finds, which is given the token of a page and returns that page."""
    found: list[T] = []
    token = None
    while True:
        page = search(token)
        found += page
        token = page.token
        if not token:
            return found


@contextmanager
def explained(uri: str, what: str = "an MLflow store") -> Iterator[None]:
    """Turn what goes wrong with a store, `what` it is to be, into one line.

    Raises:
        InputError: instead of the many exceptions of MLflow and of what it stands on.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # MLflow, SQLAlchemy, database drivers and HTTP clients share no narrower base.
        raise InputError(
            without_credentials(f"{uri}: cannot be opened as {what} ({reason(error)})")
        ) from None


def reason(error: BaseException) -> str:
    """The first line of what an exception says."""
    return without_credentials((str(error) or type(error).__name__).strip().splitlines()[0])
