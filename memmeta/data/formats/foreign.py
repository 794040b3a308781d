"""Protection against untrusted files: safe opening, recognition of formats, limits of memory."""

import stat
from io import BufferedReader
from pathlib import Path
from typing import Self

from memmeta.errors import InputError, cannot_read

_BASE = 2**26
"""Bytes of memory that reading any file may use: enough for a class of images."""

_FACTOR = 16
"""Additional bytes of memory per byte on disk. Compressed photographs and lists of small numbers
need about ten."""


class Budget:
    """The memory that reading a file may use, derived from its size on disk.

    A file can state any size for its content, compress it, or repeat one part a thousand times, so
    only the size on disk is trusted.
    """

    def __init__(self, where: Path | str, size: int) -> None:
        """Start with the full budget.

        Args:
            where: the file, for messages.
            size: its size on disk, in bytes.
        """
        self.where = where
        self.size = size
        self.left = _BASE + _FACTOR * size

    @classmethod
    def for_file(cls, path: Path) -> Self:
        """The budget of a file.

        Raises:
            InputError: it cannot be read.
        """
        return cls(path, _size(path))

    def take(self, count: int) -> None:
        """Spend `count` bytes, if possible before allocating them.

        Raises:
            InputError: fewer are left.
        """
        self.left -= count
        if self.left < 0:
            allowed = (_BASE + _FACTOR * self.size) >> 20
            raise InputError(
                f"{self.where}: refused: it would need more than {allowed} MiB of memory, "
                f"the limit for a file of {self.size} bytes"
            )


def open_file(path: Path) -> BufferedReader:
    """Open a regular file. Pipes and devices are rejected, because reading them may never end.

    Raises:
        InputError: it does not exist, is not a regular file, or cannot be read.
    """
    _size(path)
    try:
        return path.open("rb")
    except OSError as error:
        raise cannot_read(path, error) from None


def unexpected(path: Path, expected: str, rest: str = "", magic: bytes = b"") -> InputError:
    """The error for a file in another format. It names the format if the first bytes identify it.

    Args:
        path: the file.
        expected: the expected format, with an article.
        rest: appended to the message.
        magic: first bytes of the expected format. A file that has them is reported as damaged.
    """
    try:
        with open_file(path) as file:
            head = file.read(_HEAD)
    except InputError as error:
        return error
    return InputError(f"{path}: {contrast(head, expected, magic)}{rest}")


def contrast(head: bytes, expected: str, magic: bytes = b"") -> str:
    """A description such as "a web page, not a pickle" of a file that begins with `head`."""
    actual = None if magic and head.startswith(magic) else _format(head)
    return f"{actual}, not {expected}" if actual else f"not {expected}, or damaged"


_HEAD = 512
"""Number of first bytes that identify a format."""

_MAGIC = {
    b"version https://git-lfs": "a Git LFS pointer (`git lfs pull` fetches the file)",
    b"/annex/objects/": "a git-annex pointer (`git annex get` fetches the file)",
    b"\x1f\x8b": "a gzip file (unpack it first)",
    b"BZh": "a bzip2 file (unpack it first)",
    b"\xfd7zXZ\0": "an xz file (unpack it first)",
    b"\x28\xb5\x2f\xfd": "a Zstandard file (unpack it first)",
    b"PK\3\4": "a zip file (unpack it first)",
    b"Rar!\x1a\7": "a RAR file (unpack it first)",
    b"7z\xbc\xaf\x27\x1c": "a 7z file (unpack it first)",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x93NUMPY": "a NumPy .npy file",
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"%PDF-": "a PDF document",
}

_MARKUP = {
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"<head": "a web page",
    b"<?xml": "an XML document, such as a server's error",
}
"""Compared in lower case, after leading white space."""


def _format(head: bytes) -> str | None:
    """The format of a file that begins with `head`; None if unknown."""
    if not head:
        return "an empty file"
    if head[257:262] == b"ustar":
        return "a tar file (unpack it first)"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    return next((name for magic, name in _MARKUP.items() if text.startswith(magic)), None)


def _size(path: Path) -> int:
    try:
        status = path.stat()
    except OSError as error:
        raise cannot_read(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise InputError(f"{path}: cannot be read ({kind}, not a file)")
    return status.st_size
