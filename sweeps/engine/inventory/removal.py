"""Remove a sweep: its runs and files in MLflow, its record in a database, and its folder.

The folder is removed last. It has the identity of the sweep, so a removal that was interrupted or
that failed can be repeated.
"""

import shutil
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.storages import RDBStorage

from memmeta.errors import FailedError, InputError, shortened
from sweeps.engine.inventory.listing import StoredSweep
from sweeps.engine.ledger import stage_record
from sweeps.engine.ledger.opening import IDENTITY_FILE, is_in_database, read_identity, sweep_lock
from sweeps.engine.stores import artifacts
from sweeps.engine.stores.masking import masked
from sweeps.engine.stores.store import (
    all_pages,
    connect,
    database_file,
    find_runs,
    store_errors_in_one_line,
)
from sweeps.engine.study.outcome import TAGS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_VIEW = "mlflow.sharedViewState."
"""Prefix of the tags of an experiment that hold saved views of the UI."""


def remove(sweep: StoredSweep, uri: str, ledger: str | None) -> Iterator[str]:
    """Remove a sweep. Repeating it after an error or an interrupt removes the rest.

    Args:
        sweep: the sweep.
        uri: the MLflow store.
        ledger: SQLAlchemy URL of the database with its record; None if the record is a journal.

    Yields:
        A line that says what was removed, after each step.

    Raises:
        InputError: the sweep is running, its record is in a database that is not given, or a store
            cannot be opened.
        FailedError: the folder cannot be removed.
    """
    folder = sweep.folder
    if folder and folder.is_symlink():
        raise InputError(
            f"{folder}: a symbolic link, so the sweep is in another storage; remove it there: "
            f"--storage {folder.resolve().parent}"
        )
    if folder is None and sweep.state == "running":
        raise InputError(
            f"{sweep.name}: running according to MLflow, and its folder is not in this storage; "
            "give the --storage of its folder"
        )
    if folder and ledger is None and is_in_database(folder):
        raise InputError(
            f"{folder}: the record of this sweep is in a database; give its address with --ledger"
        )
    with sweep_lock(folder) if folder else nullcontext():
        for run in sweep.runs:
            with store_errors_in_one_line(uri):
                yield _remove_runs(uri, run)
        if not sweep.runs:
            yield f"no runs in {masked(uri)}"
        if folder and ledger:
            with store_errors_in_one_line(ledger, "the record of a sweep"):
                yield _remove_record(ledger, folder)
        if folder:
            _empty(folder)
    if folder:
        _remove_empty(folder)
        yield f"removed {folder}"


def _remove_runs(uri: str, sweep: "Run") -> str:
    """Delete the runs of a sweep. In an SQLite database, permanently and with their files."""
    artifacts.follow(uri)
    client = connect(uri)
    sweep = client.get_run(sweep.info.run_id)
    trials = find_runs(client, f"tags.`{TAGS.parent}` = '{sweep.info.run_id}'", deleted=True)
    permanently = database_file(uri) is not None
    _remove_views(client, sweep)
    # The sweep's run comes last, since the others are found by it.
    for run in (*trials, sweep):
        _remove_models(client, uri, run, permanently)
        if permanently:
            _remove_files(run.info.artifact_uri, run.info.run_id, uri)
            # MLflow's public command, `mlflow gc`, also removes what else was deleted.
            client._tracking_client.store._hard_delete_run(run.info.run_id)
        elif run.info.lifecycle_stage == "active":
            client.delete_run(run.info.run_id)
    count = f"{len(trials)} {'trial' if len(trials) == 1 else 'trials'}"
    what = f"its run and {count} in {masked(uri)}"
    if permanently:
        return f"removed {what}, and their files"
    return f"deleted {what}; they can be restored there until `mlflow gc` removes them"


def _remove_models(client: "MlflowClient", uri: str, run: "Run", permanently: bool) -> None:
    """Delete the models that a run has logged."""
    experiment, query = run.info.experiment_id, f"source_run_id = '{run.info.run_id}'"
    models = all_pages(
        lambda token: client.search_logged_models([experiment], query, page_token=token)
    )
    for model in models:
        if permanently:
            _remove_files(model.artifact_location, model.model_id, uri)
            client._tracking_client.store._hard_delete_logged_model(model.model_id)
        else:
            client.delete_logged_model(model.model_id)


def _remove_views(client: "MlflowClient", sweep: "Run") -> None:
    """Delete the saved views of a sweep from its experiment."""
    experiment = client.get_experiment(sweep.info.experiment_id)
    for name, value in experiment.tags.items():
        if name.startswith(_VIEW) and sweep.info.run_id in value:
            client.delete_experiment_tag(experiment.experiment_id, name)


def _remove_files(location: str, owner: str, uri: str) -> None:
    """Remove a folder of artifacts, and its parent folder, which MLflow leaves.

    Args:
        location: address of the folder.
        owner: id of the run or model whose folder it is.
        uri: the MLflow store.

    Raises:
        InputError: the folder is not named like one that MLflow makes for its owner.
    """
    if not location.endswith(f"/{owner}/artifacts"):
        raise InputError(
            f"{masked(uri)}: states {shortened(location)} as the files of {owner}; a folder "
            f".../{owner}/artifacts is expected. Nothing in it was removed"
        )
    # Slow to import. Reads the environment, so it must come inside `store_errors_in_one_line`.
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.utils.file_utils import local_file_uri_to_path

    get_artifact_repository(location, tracking_uri=uri).delete_artifacts()
    if location.startswith("file:"):
        with suppress(OSError):
            Path(local_file_uri_to_path(location)).parent.rmdir()


def _remove_record(url: str, folder: Path) -> str:
    """Delete the Optuna studies of the sweep in `folder` from a database."""
    file = database_file(url)
    if file and not file.exists():
        raise InputError(f"--ledger: {file}: no such database")
    storage, identity = RDBStorage(url), read_identity(folder)
    own = [
        summary.study_name
        for summary in optuna.get_all_study_summaries(storage)
        if summary.user_attrs.get(stage_record.FOLDER) == identity
    ]
    for name in own:
        optuna.delete_study(study_name=name, storage=storage)
    return f"removed {len(own)} stages of its record in {masked(url)}"


def _empty(folder: Path) -> None:
    """Remove all files of a sweep but its lock, which this process holds."""
    # Last, so that an interrupted removal leaves a folder that is recognised. The journal after the
    # identity: otherwise the rest would look like a sweep whose record is in a database.
    records = [folder / IDENTITY_FILE, folder / "journal.log"]
    try:
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != "lock" and path not in records:
                path.unlink()
        for path in records:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise _failed(folder, error) from None


def _remove_empty(folder: Path) -> None:
    try:
        (folder / "lock").unlink(missing_ok=True)
        folder.rmdir()
    except OSError as error:
        raise _failed(folder, error) from None


def _failed(folder: Path, error: OSError) -> FailedError:
    return FailedError(f"{error.filename or folder}: cannot be removed ({error.strerror})")
