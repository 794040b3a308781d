"""Images inside zip files, read where they are: what is not unpacked cannot be misplaced."""

import zipfile
from pathlib import Path
from types import TracebackType
from typing import Self

from memmeta.data.unpickling import printable
from memmeta.errors import InputError

MAX_IMAGE_BYTES = 2**20
"""Larger members are refused, before and while they are decompressed."""


class ZippedImages:
    """The PNG files of a zip file, by folder; open until the end of a `with` block."""

    def __init__(self, path: Path) -> None:
        """Read the table of contents.

        Raises:
            InputError: no zip file, damaged, or with names that lead out of it.
        """
        self.path = path
        self._folders: dict[str, list[zipfile.ZipInfo]] = {}
        try:
            self._archive = zipfile.ZipFile(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        except Exception:  # damaged archives raise many kinds
            raise InputError(f"{path}: not a zip file, or damaged") from None
        for member in self._archive.infolist():
            whole = member.filename
            if ".." in whole.split("/") or whole.startswith("/") or "\\" in whole:
                raise InputError(f"{path}: a name that leads out: {printable(whole)}")
            folder, _, name = whole.rpartition("/")
            if name.endswith(".png"):
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

    def read(self, folder: str) -> dict[str, bytes]:
        """The content of the PNG files right in a folder, by name.

        Raises:
            InputError: one of them is too large, encrypted, oddly compressed or damaged.
        """
        contents = {}
        try:
            for member in self._folders.get(folder, ()):
                contents[member.filename] = self._read(member)
        except InputError:
            raise
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from None
        except Exception:  # damaged archives raise many kinds
            raise InputError(f"{self.path}: damaged at {printable(folder)}") from None
        return contents

    def _read(self, member: zipfile.ZipInfo) -> bytes:
        where = f"{self.path}: {printable(member.filename)}"
        # Other methods decompress all they are given at once, however much comes of it.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{where}: compressed in a way that is not read")
        if member.flag_bits & 1:
            raise InputError(f"{where}: encrypted")
        if member.file_size > MAX_IMAGE_BYTES:
            raise InputError(f"{where}: {member.file_size} bytes are too many for an image")
        with self._archive.open(member) as file:
            return file.read(member.file_size + 1)
