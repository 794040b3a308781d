"""Images inside zip files, read where they are: what is not unpacked cannot be misplaced."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from memmeta.data.formats.foreign import Budget, unexpected, unreadable
from memmeta.data.formats.images import is_image_name
from memmeta.errors import InputError, shortened

MAX_IMAGE_BYTES = 2**20
"""Larger members are refused, before and while they are decompressed."""


class ZippedImages:
    """The PNG files of a zip file, by folder; open until the end of a `with` block."""

    def __init__(self, path: Path) -> None:
        """Read the table of contents.

        Raises:
            InputError: not a zip file, damaged, or has a name twice or one that leads out of it.
        """
        self.path = path
        self._budget = Budget.of(path)
        self._folders: dict[str, list[zipfile.ZipInfo]] = {}
        try:
            self._archive = zipfile.ZipFile(path)
        except OSError as error:
            raise unreadable(path, error) from None
        except Exception:  # damaged archives raise many kinds
            raise unexpected(path, "a zip file", magic=b"PK") from None
        names = set()
        for member in self._archive.infolist():
            whole = member.filename
            if ".." in whole.split("/") or whole.startswith("/") or "\\" in whole:
                raise InputError(f"{path}: a name that leads out: {shortened(whole)}")
            if whole in names:
                raise InputError(f"{path}: {shortened(whole)} is there twice")
            names.add(whole)
            folder, _, name = whole.rpartition("/")
            if is_image_name(name):
                self._folders.setdefault(folder, []).append(member)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._archive.close()

    def read(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """Name and content of the PNG files directly in a folder, one at a time.

        Raises:
            InputError: an image is too large, encrypted, oddly compressed or damaged, or the images
                read so far take too much memory for a file of this size.
        """
        for member in self._folders.get(folder, ()):
            try:
                content = self._read(member)
            except InputError:
                raise
            except OSError as error:
                raise unreadable(self.path, error) from None
            except Exception:  # damaged archives raise many kinds
                raise InputError(f"{self.path}: damaged at {shortened(folder)}") from None
            yield member.filename, content

    def _read(self, member: zipfile.ZipInfo) -> bytes:
        where = f"{self.path}: {shortened(member.filename)}"
        # Other methods decompress all they are given at once, however much comes of it.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{where}: compressed in a way that is not read")
        if member.flag_bits & 1:
            raise InputError(f"{where}: encrypted")
        if member.file_size > MAX_IMAGE_BYTES:
            raise InputError(f"{where}: {member.file_size} bytes are too many for an image")
        # Members can share their compressed bytes.
        self._budget.take(member.file_size)
        with self._archive.open(member) as file:
            return file.read(member.file_size + 1)
