"""Opening MLflow stores, without log messages and long timeouts."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock

from memmeta.errors import InputError
from memmeta.system.files import atomic_write, check_writable, resolved
from sweeps.engine.stores.masking import masked, reason
from sweeps.engine.stores.quiet import quiet_mlflow, silence_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.store.entities import PagedList

T = TypeVar("T")


def default_uri(storage: Path) -> str:
    """The MLflow store in a storage folder, with an absolute path: Ray changes directories."""
    return _address(resolved(storage) / "mlflow.db")


def tracking_store(storage: str | Path, tracking_uri: str | None) -> str:
    """The MLflow store to use: the given one, else MLFLOW_TRACKING_URI, else one in `storage`.

    Raises:
        InputError: the path of `storage` cannot hold a database.
    """
    # Checked even if it is not used: the summary compares the two.
    own = default_uri(Path(storage))
    return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or own


def _address(path: Path) -> str:
    """The address of an SQLite database, with special characters escaped.

    Raises:
        InputError: the path is not UTF-8.
    """
    # Slow to import.
    from sqlalchemy.engine import URL

    try:
        plain = URL.create("sqlite", database=str(path)).render_as_string()
    except UnicodeEncodeError:
        raise InputError(
            f"{str(path)!r}: cannot hold a database, since the path is not UTF-8"
        ) from None
    if plain == f"sqlite:///{path}":
        return plain
    # For addresses with "sqlite:///", MLflow would create a folder with the escaped path.
    return URL.create("sqlite+pysqlite", database=str(path)).render_as_string()


def database_file(uri: str) -> Path | None:
    """The file of the SQLite database at `uri`, or None for any other store."""
    if not uri.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url

    database = make_url(uri).database
    return Path(database) if database and not database.startswith((":memory:", "file:")) else None


def in_database(uri: str) -> bool:
    """Whether a store is a database, for which `mlflow ui` is needed. A server has its own UI."""
    return uri.startswith(("sqlite", "mysql", "postgresql", "mssql"))


def check_database(path: Path) -> None:
    """Check that a file is the database of an MLflow store. MLflow itself accepts any database.

    Raises:
        sqlite3.Error: it is not.
        InputError: it is a folder or a pipe. SQLite would wait for a writer of a pipe.
    """
    if not path.is_file():
        raise InputError(f"{path}: not a file")
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        connection.execute("SELECT 1 FROM latest_metrics LIMIT 1")
    finally:
        connection.close()


def make_database(uri: str) -> None:
    """Create the database of an MLflow store atomically, if its file does not exist.

    MLflow creates tables one by one, and cannot use a database in which some are missing. Several
    processes may call this at once: one creates the database, and the others wait.
    """
    path = database_file(uri)
    if path is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with FileLock(lock):
        if not path.exists():
            with atomic_write(path) as file:
                connect(_address(Path(file.name))).search_experiments(max_results=1)
        lock.unlink()


def check_store(uri: str) -> None:
    """Check that runs can be written to a store, before there are any. Does not create it.

    A server and its database are asked. For an SQLite file, MLflow is not imported, which would
    take seconds.

    Raises:
        AwayError: the store cannot be used now, but may work later.
        InputError: it cannot be used.
    """
    path = database_file(uri)
    with store_errors_in_one_line(uri):
        if path is None:
            connect(uri).search_experiments(max_results=1)
        elif path.exists():
            check_database(path)
        else:
            check_writable(path)


def refuse_memory(uri: str) -> None:
    """Refuse an SQLite database in memory, which is lost with the process.

    Raises:
        InputError: it is one.
    """
    from sqlalchemy.engine import make_url

    if uri.startswith("sqlite:") and make_url(uri).database in (None, "", ":memory:"):
        raise InputError(
            f"{uri}: a database in memory, which would be lost; the address of a file is "
            "accepted, such as sqlite:////folder/mlflow.db"
        )


def connect(uri: str) -> "MlflowClient":
    """A client for the store at `uri`. Use it inside `store_errors_in_one_line` or `quiet_mlflow`.

    Raises:
        InputError: the store is a database in memory.
    """
    refuse_memory(uri)
    # Slow to import, and it reads the environment.
    from mlflow import MlflowClient

    silence_mlflow()
    return MlflowClient(uri)


def all_pages(search: "Callable[[str | None], PagedList[T]]") -> list[T]:
    """All results of a paginated search.

    Args:
        search: returns a page of results, given the page's token (None for the first page).
    """
    items: list[T] = []
    token = None
    while True:
        page = search(token)
        items += page
        token = page.token
        if not token:
            return items


def find_runs(client: "MlflowClient", query: str, deleted: bool = False) -> "list[Run]":
    """All runs of all experiments that match a query.

    Args:
        client: the client of the store.
        query: a filter in MLflow's syntax.
        deleted: whether to include deleted runs.
    """
    from mlflow.entities import ViewType

    view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
    experiments = all_pages(lambda token: client.search_experiments(page_token=token))
    ids = [experiment.experiment_id for experiment in experiments]
    return all_pages(lambda token: client.search_runs(ids, query, view, page_token=token))


class AwayError(InputError):
    """A store exists but cannot be used now, such as a locked database."""


@contextmanager
def store_errors_in_one_line(uri: str, what: str = "an MLflow store") -> Iterator[None]:
    """Re-raise store errors as a one-line InputError. MLflow is quiet in the block.

    Args:
        uri: the store.
        what: expected type of the store, for the message.

    Raises:
        InputError: the store failed.
        AwayError: the store failed, but may work later.
    """
    try:
        with quiet_mlflow():
            yield
    except InputError:
        raise
    except Exception as error:
        # MLflow, SQLAlchemy, database drivers and HTTP clients share no narrower base class.
        error_type = AwayError if _is_away(error) else InputError
        raise error_type(
            f"{masked(uri)}: cannot be opened as {what} ({reason(error, uri)})"
        ) from None


def _is_away(error: BaseException | None) -> bool:
    """Whether a store is locked, or a server accepted a connection but did not answer in time."""
    from mlflow.exceptions import RestException
    from urllib3.exceptions import ReadTimeoutError

    while error is not None:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # drop the extended error code
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return True
        if isinstance(error, ReadTimeoutError):
            return True
        # The answer of a server whose database is locked.
        if isinstance(error, RestException) and error.error_code == "TEMPORARILY_UNAVAILABLE":
            return True
        error = error.__cause__ or error.__context__
    return False
