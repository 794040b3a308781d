"""Opening the record of a sweep, and checking that it is intact and belongs to the folder."""

import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from memmeta.errors import InputError, cannot_read, cannot_write
from memmeta.system.files import atomic_write
from sweeps.engine.ledger.folder import STORAGE_ERRORS
from sweeps.engine.ledger.journal import LINE, ResilientJournal, WhenAvailable
from sweeps.engine.stores.store import refuse_memory, store_errors_in_one_line

IDENTITY_FILE = "ledger.id"
"""In a sweep's folder: the file with its identity."""

_NEW_IDENTITY = "Restore it from a copy, or remove it; then MLflow shows the sweep as a new one"

_RESTORE = "Restore it from a copy, or begin a new version of the sweep (option fresh)"


@contextmanager
def sweep_lock(folder: Path) -> Iterator[None]:
    """Lock the sweep in `folder`. Two drivers on one ledger would run the same trials.

    Raises:
        InputError: another process holds the lock, or the folder cannot be written.
    """
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{folder}: this sweep is already running in another process") from None
    except OSError as error:
        if error.errno in STORAGE_ERRORS:
            raise
        raise cannot_write(Path(lock.lock_file), error) from None
    try:
        yield
    finally:
        lock.release()


def is_running(folder: Path) -> bool:
    """Whether a process holds the lock of `sweep_lock`. Creates no file."""
    path = folder / "lock"
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that this user cannot write
        return False


def is_in_database(folder: Path) -> bool:
    """Whether the record of the sweep in `folder` is in a database instead of a journal."""
    return (folder / IDENTITY_FILE).exists() and not (folder / "journal.log").exists()


def open_storage(folder: Path, url: str | None, when_available: WhenAvailable) -> BaseStorage:
    """Open the record of the sweep in `folder`, or start one.

    Args:
        folder: the sweep's folder. The journal is in it.
        url: SQLAlchemy URL of a database that holds the record instead of the journal.
        when_available: runs reads and writes of the journal.

    Raises:
        InputError: the record cannot be read, or the sweep has its record elsewhere. All trials
            would run again with another record.
    """
    journal = folder / "journal.log"
    if url is not None:
        if journal.exists() and journal.stat().st_size:
            raise InputError(f"ledger: the record of this sweep is {journal}; leave ledger out")
        with store_errors_in_one_line(url, "the record of a sweep"):
            refuse_memory(url)
            return RDBStorage(url)
    if is_in_database(folder):
        raise InputError(
            f"{folder}: the record of this sweep is in a database; give its address (option "
            f"ledger). If it was never in one, {journal.name} is lost: begin a new version "
            "(option fresh)"
        )
    if os.path.lexists(journal) and not journal.is_file():
        raise InputError(f"{journal}: not a file. {_RESTORE}")
    try:
        _repair(journal)
        _check_lines(journal)
        return JournalStorage(ResilientJournal(str(journal), when_available))
    except InputError:
        raise
    except OSError as error:
        raise cannot_read(journal, error) from None
    # Optuna raises many kinds of errors for records that it does not know.
    except Exception:
        raise InputError(
            f"{journal}: has records that this version of Optuna ({optuna.__version__}) does not "
            f"know. {_RESTORE}"
        ) from None


@contextmanager
def damage_in_one_line(folder: Path) -> Iterator[None]:
    """Re-raise errors caused by a modified or damaged record as a one-line InputError."""
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise InputError(
            f"{folder}: the record of this sweep is damaged ({str(error)[:200]}). {_RESTORE}"
        ) from None


def read_identity(folder: Path) -> str:
    """The unique id of a sweep's folder, or a new one. It stays the same if the folder is moved.

    Raises:
        InputError: the file with the id cannot be read or is damaged.
    """
    path = folder / IDENTITY_FILE
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a file. {_NEW_IDENTITY}")
    try:
        identity = path.read_bytes()
    except FileNotFoundError:
        return uuid.uuid4().hex
    except OSError as error:
        raise cannot_read(path, error) from None
    if not re.fullmatch(rb"[0-9a-f]{32}", identity):
        raise InputError(f"{path}: damaged. {_NEW_IDENTITY}")
    return identity.decode()


def write_identity(folder: Path, identity: str) -> None:
    """Write the id of the folder, unless it has one."""
    path = folder / IDENTITY_FILE
    if not path.exists():
        with atomic_write(path) as file:
            file.write(identity.encode())


def check_not_emptied(folder: Path) -> None:
    """Refuse an empty record next to checkpoints.

    Raises:
        InputError: the folder has checkpoints of trials.
    """
    checkpoints = folder / "checkpoints"
    if checkpoints.is_dir() and any(checkpoints.iterdir()):
        raise InputError(
            f"{folder}: has checkpoints of trials, and their record is empty. Restore the "
            f"record from a copy, remove {checkpoints} to run all trials again, or "
            "begin a new version (option fresh)"
        )


def _repair(journal: Path) -> None:
    """Remove the lock and the torn last line of a driver that was killed or ran out of disk space.

    `sweep_lock` has made sure that no other driver uses the journal.
    """
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.exists():
        with journal.open("r+b") as file:
            content = file.read()
            # Text editors add blank lines, so these are removed too.
            records = content[: content.rfind(b"\n") + 1].rstrip()
            file.truncate(len(records) + 1 if records else 0)


def _check_lines(journal: Path) -> None:
    """Check that every line is a record, and that none is missing.

    Optuna numbers trials by counting records, so one lost line would shift all later results.

    Raises:
        InputError: a line is not a record, or lines are missing.
    """
    if not journal.exists():
        return
    with journal.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
                known = isinstance(record["op_code"], int)
            except (ValueError, TypeError, LookupError, RecursionError):
                known = False
            if not known:
                raise InputError(f"{journal}: line {number} is not a record. {_RESTORE}")
            if record.get(LINE, number) != number:
                raise InputError(
                    f"{journal}: lines before line {number} are missing or were added. {_RESTORE}"
                )
