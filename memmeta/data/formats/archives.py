"""Images inside zip files, read without unpacking, so that no member is written to disk."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from memmeta.data.formats.foreign import Budget, unexpected
from memmeta.data.formats.images import is_image_name
from memmeta.errors import InputError, cannot_read, shortened

MAX_IMAGE_BYTES = 2**20
"""Larger members are rejected, before and during decompression."""


class ZippedImages:
    """The PNG files of a zip file, by folder. A context manager that closes the file."""

    def __init__(self, path: Path) -> None:
        """Read the table of contents.

        Raises:
            InputError: not a zip file, damaged, or a member name occurs twice or points outside.
        """
        self.path = path
        self._budget = Budget.for_file(path)
        self._folders: dict[str, list[zipfile.ZipInfo]] = {}
        try:
            self._archive = zipfile.ZipFile(path)
        except OSError as error:
            raise cannot_read(path, error) from None
        except Exception:  # damaged archives raise many types of errors
            raise unexpected(path, "a zip file", magic=b"PK") from None
        seen = set()
        for member in self._archive.infolist():
            full_name = member.filename
            if ".." in full_name.split("/") or full_name.startswith("/") or "\\" in full_name:
                raise InputError(
                    f"{path}: a name points outside the archive: {shortened(full_name)}"
                )
            if full_name in seen:
                raise InputError(f"{path}: {shortened(full_name)} is listed twice")
            seen.add(full_name)
            folder, _, name = full_name.rpartition("/")
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
        """Yield the name and content of each PNG file directly in a folder.

        Raises:
            InputError: an image is too large, encrypted, damaged or compressed by an unsupported
                method, or the images read so far exceed the memory budget of the file.
        """
        for member in self._folders.get(folder, ()):
            try:
                content = self._read(member)
            except InputError:
                raise
            except OSError as error:
                raise cannot_read(self.path, error) from None
            except Exception:  # damaged archives raise many types of errors
                raise InputError(f"{self.path}: damaged at {shortened(folder)}") from None
            yield member.filename, content

    def _read(self, member: zipfile.ZipInfo) -> bytes:
        where = f"{self.path}: {shortened(member.filename)}"
        # Other methods decompress all of their input at once, with no limit on the output.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{where}: unsupported compression")
        if member.flag_bits & 1:
            raise InputError(f"{where}: encrypted")
        if member.file_size > MAX_IMAGE_BYTES:
            raise InputError(
                f"{where}: {member.file_size} bytes exceed the limit of {MAX_IMAGE_BYTES} for an "
                "image"
            )
        # Members can share their compressed bytes, so each one is charged.
        self._budget.take(member.file_size)
        with self._archive.open(member) as file:
            return file.read(member.file_size + 1)
