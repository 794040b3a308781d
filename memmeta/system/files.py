"""Files that are written whole or not at all."""

import glob
import itertools
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole(path: Path, below: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write that becomes `path` when all is on disk; until then the old one stays.

    Any number of processes may write the same path; the last one to finish wins. One that is
    killed half-way leaves a hidden partial file, which the next writer of the path removes.

    Args:
        path: the file. Folders on the way are made.
        below: a folder that has to be there: neither it nor what is above it is made. So nothing
            is written beside a file system that went away.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    _make_folders(path.parent, below)
    partial, file = _begun(path)
    try:
        with file:
            _remove_abandoned(path.parent, f".{glob.escape(path.name)}.*.partial")
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Try what `whole` will do, and leave nothing of it but the folders on the way.

    Raises:
        OSError: `path` cannot be written.
    """
    _make_folders(path.parent, None)
    partial = _partial(path)
    partial.touch(exist_ok=False)
    partial.unlink()


def remove_abandoned(folder: Path) -> None:
    """Remove what killed writers left in `folder` and in all folders below it."""
    _remove_abandoned(folder, "**/.*.partial")


def _make_folders(folder: Path, below: Path | None) -> None:
    if below is None:
        folder.mkdir(parents=True, exist_ok=True)
        return
    on_the_way = itertools.takewhile(lambda other: other != below, [folder, *folder.parents])
    for missing in reversed([*on_the_way]):
        missing.mkdir(exist_ok=True)


def _partial(path: Path) -> Path:
    """A new name beside `path`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")


def _begun(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside `path`, that says of itself that somebody writes it."""
    while True:
        partial = _partial(path)
        file = partial.open("xb")
        _hold(file, wait=True)
        if partial.exists():  # another process may have found it before it was held
            return partial, file
        file.close()


def _remove_abandoned(folder: Path, pattern: str) -> None:
    for partial in folder.glob(pattern):
        # Others write and remove here too.
        with suppress(OSError), partial.open("r+b") as file:
            if _hold(file):
                partial.unlink()


def _hold(file: BinaryIO, wait: bool = False) -> bool:
    """Lock a file until it is closed or its process ends.

    Args:
        file: what is locked.
        wait: whether to wait for a process that has locked it.

    Returns:
        False where another process has, or where the file system knows no locks.
    """
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
