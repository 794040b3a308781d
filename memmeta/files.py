"""Files that are written whole or not at all."""

import glob
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_ABANDONED_SECONDS = 3600


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that becomes `path` when all is on disk; until then the old one stays.

    Folders on the way are made. Any number of processes may write the same path; the last one
    to finish wins. One killed half-way leaves a hidden partial file, which a later writer of the
    path removes when it is an hour old.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    partial = _partial(path)
    try:
        with partial.open("xb") as file:
            _remove_abandoned(path, partial)
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
    partial = _partial(path)
    partial.touch(exist_ok=False)
    partial.unlink()


def _partial(path: Path) -> Path:
    """A new name beside `path`, in a folder that exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")


def _remove_abandoned(path: Path, own: Path) -> None:
    # By the clock of the file system, which may be another machine's.
    now = own.stat().st_mtime
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        # Others write and remove here too.
        with suppress(OSError):
            if partial.stat().st_mtime < now - _ABANDONED_SECONDS:
                partial.unlink()
