"""The interface of layouts. A layout yields the split, the class and the place of each image."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from memmeta.data.formats.foreign import open_file
from memmeta.data.formats.images import MAX_IMAGE_BYTES
from memmeta.errors import InputError, cannot_read, shortened
from memmeta.system.files import resolved

_SPLIT_NAMES = {
    "train": "train", "training": "train", "base": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test", "novel": "test",
}  # fmt: skip


class Content(Protocol):
    """Where the bytes of an image are."""

    def read(self) -> bytes:
        """The bytes of the image file. Threads may call this at the same time.

        Raises:
            InputError: they cannot be read.
        """

    def stamp(self) -> str:
        """Text that changes if the file changes."""


class Entry(NamedTuple):
    """One image of a layout."""

    split: str | None
    """train, val or test; None if the layout has no splits."""
    label: str
    """The name of the class."""
    where: str
    """The file, for messages."""
    content: Content


class LeftOut(NamedTuple):
    """A file among the images that is not one, by its name."""

    path: Path


class Layout(Protocol):
    """A module of this package."""

    @property
    def FORM(self) -> str:
        """The layout in words."""

    @property
    def LISTS_PATHS(self) -> bool:
        """Whether the layout lists paths, which may be relative to another folder."""

    def files(self, place: Path) -> list[Path]:
        """The files or folders of this layout at `place`; empty if there are none."""

    def entries(self, files: list[Path], images: Path | None) -> Iterator[Entry | LeftOut]:
        """The images, one at a time, and files that are left out.

        Args:
            files: what `files` returned.
            images: the folder to which listed paths are relative; None: that of the list.

        Raises:
            InputError: a file is damaged, or a path leads out of the folder.
        """


@dataclass(frozen=True, slots=True)
class FilePart:
    """An image that is a file, or a part of one."""

    path: Path
    start: int = 0
    size: int | None = None
    """None: up to the end of the file."""

    def read(self) -> bytes:
        """See `Content.read`."""
        try:
            with open_file(self.path) as file:
                file.seek(self.start)
                content = file.read(MAX_IMAGE_BYTES + 1 if self.size is None else self.size)
        except OSError as error:
            raise cannot_read(self.path, error) from None
        if len(content) > MAX_IMAGE_BYTES:
            raise InputError(f"{self.path}: larger than the limit of {MAX_IMAGE_BYTES} bytes")
        return content

    def stamp(self) -> str:
        """See `Content.stamp`."""
        return f"{self.start} {self.size} {file_stamp(self.path)}"


def file_stamp(path: Path) -> str:
    """The size and the time of the last change of a file; empty if there is none."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


class Below:
    """A folder whose images may be read. Links and paths that lead out of it are refused."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._real = resolved(folder)
        self._checked: set[Path] = set()

    def resolve(self, name: str, where: str) -> Path:
        """The path of a listed file.

        Args:
            name: as in a list, relative to the folder or absolute.
            where: the list and the line, for messages.

        Raises:
            InputError: the path leads out of the folder.
        """
        parts = name.replace("\\", "/")
        if "\0" in name or ".." in parts.split("/"):
            raise InputError(f"{where}: {shortened(name)} leads out of {self.folder}")
        return self.check(self.folder / parts, where)

    def check(self, path: Path, where: str = "") -> Path:
        """Return `path` if it is below the folder, after following links.

        Raises:
            InputError: it is not.
        """
        is_link = path.is_symlink()
        # A folder is resolved once, not for each of its files.
        if is_link or path.parent not in self._checked:
            if not resolved(path).is_relative_to(self._real):
                kind = "is a link that leads" if is_link else "leads"
                raise InputError(
                    f"{where or path}: {shortened(str(path))} {kind} out of {self._real}"
                )
            if not is_link:
                self._checked.add(path.parent)
        return path


def split_named(name: str) -> str | None:
    """The split that a file or folder is named after; None if it is not named after one.

    Examples:
        >>> [split_named(name) for name in ("Validation", "train-00000-of-00002", "trains")]
        ['val', 'train', None]
    """
    match = re.match(r"[a-z]+(?=$|[-_.0-9])", name.lower())
    return _SPLIT_NAMES.get(match[0]) if match else None


def with_suffix(place: Path, *suffixes: str) -> list[Path]:
    """`place` if it is a file with one of the suffixes, else the files in it that have one.

    Hidden files are left out.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        paths = sorted(place.iterdir()) if place.is_dir() else [place]
    except OSError as error:
        raise cannot_read(place, error) from None
    return [
        path
        for path in paths
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    ]
