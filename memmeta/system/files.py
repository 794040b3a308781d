"""Atomic file writing."""

import errno
import glob
import itertools
import os
import stat
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: Path, below: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` once all its content is on disk.

    Any number of processes may write the same path; the last one to finish wins. A process that is
    killed while writing leaves a hidden partial file, which the next writer of the path removes.

    Args:
        path: the file. Missing parent folders are created.
        below: a parent folder that must exist and is never created. This prevents writing to the
            mount point of a file system that is not mounted.

    Raises:
        OSError: the file cannot be written. `path` is unchanged.

    Examples:
        >>> with atomic_write(Path("notes.txt")) as file:
        ...     _ = file.write(b"all or nothing")
    """
    _refuse_devices(path)
    _make_folders(path.parent, below)
    partial, file = _create_partial(path)
    try:
        with file:
            _remove_abandoned(path.parent, f".{glob.escape(path.name)}.*.partial")
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


_LONGEST_NAME, _LONGEST_PATH = 255, 4095
"""Bytes of the name of a file or folder, and of a path, on common systems."""


def usable_path(value: object) -> Path:
    """A path from a user, if a file can have it.

    Raises:
        ValueError: it is none, empty, or too long, or contains a NUL.

    Examples:
        >>> usable_path("runs/best.yaml")
        PosixPath('runs/best.yaml')
    """
    if not isinstance(value, str | os.PathLike):
        raise ValueError("a path is accepted, as a string or a pathlib.Path")
    text = os.fsdecode(value)
    if not text:
        raise ValueError("a path is accepted, not an empty string")
    if "\0" in text:
        raise ValueError("a path without the character NUL is accepted")
    try:
        names = [os.fsencode(name) for name in Path(text).parts]
    except UnicodeEncodeError:
        raise ValueError("a path is accepted whose characters a file name can have") from None
    if max(map(len, names), default=0) > _LONGEST_NAME or len(os.fsencode(text)) > _LONGEST_PATH:
        limits = f"{_LONGEST_PATH} bytes, with names of at most {_LONGEST_NAME} bytes"
        raise ValueError(f"a path of at most {limits} is accepted")
    return Path(text)


def other_than_a_file(path: Path) -> str | None:
    """Name what `path` is, if it exists and is not a file: `a folder`, for example."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return "a symbolic link that leads nowhere" if path.is_symlink() else None
    if stat.S_ISREG(mode):
        return None
    return "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"


def resolved(path: Path) -> Path:
    """The absolute path without symbolic links. Unlike `Path.resolve` it accepts loops of links."""
    return Path(os.path.realpath(path))


def check_writable(path: Path) -> None:
    """Check that `atomic_write` can write `path`. Creates missing parent folders.

    Raises:
        OSError: `path` cannot be written.
    """
    _refuse_devices(path)
    _make_folders(path.parent, None)
    partial = _partial(path)
    partial.touch(exist_ok=False)
    partial.unlink()


def remove_abandoned(folder: Path) -> None:
    """Remove partial files of killed writers in `folder` and all its subfolders."""
    _remove_abandoned(folder, "**/.*.partial")


def _refuse_devices(path: Path) -> None:
    """Refuse to replace a device or a pipe, which renaming a file over it would.

    Raises:
        OSError: `path` is one.
    """
    is_special = path.exists() and not path.is_file() and not path.is_dir()
    # /dev/stdout may lead to a file.
    if is_special or path.absolute().parent == Path("/dev"):
        raise OSError(errno.EINVAL, "a device or a pipe, which would be replaced", str(path))


def _make_folders(folder: Path, below: Path | None) -> None:
    if below is None:
        folder.mkdir(parents=True, exist_ok=True)
        return
    on_the_way = itertools.takewhile(lambda other: other != below, [folder, *folder.parents])
    for missing in reversed([*on_the_way]):
        missing.mkdir(exist_ok=True)


def _partial(path: Path) -> Path:
    """A new file name in the folder of `path`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")


def _create_partial(path: Path) -> tuple[Path, BinaryIO]:
    """Create a locked file in the folder of `path`."""
    while True:
        partial = _partial(path)
        file = partial.open("xb")
        _hold(file, wait=True)
        if partial.exists():  # another process may have removed it before it was locked
            return partial, file
        file.close()


def _remove_abandoned(folder: Path, pattern: str) -> None:
    for partial in folder.glob(pattern):
        # Other processes write and remove files here too.
        with suppress(OSError), partial.open("r+b") as file:
            if _hold(file):
                partial.unlink()


def _hold(file: BinaryIO, wait: bool = False) -> bool:
    """Lock a file until it is closed or its process ends.

    Args:
        file: the file.
        wait: whether to wait for a process that holds the lock.

    Returns:
        False if another process holds the lock, or if the file system does not support locks.
    """
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
