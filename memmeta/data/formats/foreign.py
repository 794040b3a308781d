"""Guards for files that others wrote: opening, recognising the wrong kind, bounding memory."""

import stat
from io import BufferedReader
from pathlib import Path
from typing import Self

from memmeta.errors import InputError

_ALWAYS = 2**26
"""Every file may take this many bytes of memory: enough for a class of images."""

_TIMES = 16
"""In addition, bytes of memory for each byte on disk. Compressed photographs and lists of small
numbers take about ten."""


class Budget:
    """The memory that reading a file may take, derived from its size on disk.

    A file can claim any size for its content, compress it, or repeat one part a thousand times, so
    only its size on disk is trusted.
    """

    def __init__(self, where: Path | str, size: int) -> None:
        """Start with the full budget.

        Args:
            where: the file, for messages.
            size: its size on disk, in bytes.
        """
        self.where = where
        self.size = size
        self.left = _ALWAYS + _TIMES * size

    @classmethod
    def of(cls, path: Path) -> Self:
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
            allowed = (_ALWAYS + _TIMES * self.size) >> 20
            raise InputError(
                f"{self.where}: refused: it would take more than {allowed} MiB of memory, "
                f"all that a file of {self.size} bytes may take"
            )


def open_file(path: Path) -> BufferedReader:
    """Open a regular file. Pipes and devices, which may never end, are refused.

    Raises:
        InputError: it does not exist, is not a regular file, or cannot be read.
    """
    _size(path)
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> InputError:
    """The error for a file that the system refuses to read."""
    return InputError(f"{path}: cannot be read ({error.strerror or error})")


def unexpected(path: Path, expected: str, rest: str = "", magic: bytes = b"") -> InputError:
    """The error for a file of another kind, named if its first bytes tell it.

    Args:
        path: the file.
        expected: the kind it should have, with an article.
        rest: appended to the message.
        magic: the first bytes of the expected kind; a file that has them is called damaged.
    """
    try:
        with open_file(path) as file:
            head = file.read(_HEAD)
    except InputError as error:
        return error
    return InputError(f"{path}: {contrast(head, expected, magic)}{rest}")


def contrast(head: bytes, expected: str, magic: bytes = b"") -> str:
    """Words such as "a web page, not a pickle", for a file with the first bytes `head`."""
    kind = None if magic and head.startswith(magic) else _kind(head)
    return f"{kind}, not {expected}" if kind else f"not {expected}, or damaged"


_HEAD = 512
"""The number of first bytes that tell kinds of files apart."""

_BEGINNINGS = {
    b"version https://git-lfs": "a Git LFS pointer (`git lfs pull` fetches the file)",
    b"/annex/objects/": "a git-annex pointer (`git annex get` fetches the file)",
    b"\x1f\x8b": "a gzip file, to be unpacked first",
    b"BZh": "a bzip2 file, to be unpacked first",
    b"\xfd7zXZ\0": "an xz file, to be unpacked first",
    b"\x28\xb5\x2f\xfd": "a Zstandard file, to be unpacked first",
    b"PK\3\4": "a zip file, to be unpacked first",
    b"Rar!\x1a\7": "a RAR file, to be unpacked first",
    b"7z\xbc\xaf\x27\x1c": "a 7z file, to be unpacked first",
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


def _kind(head: bytes) -> str | None:
    """The kind of a file by its first bytes; None if they do not tell it."""
    if not head:
        return "an empty file"
    if head[257:262] == b"ustar":
        return "a tar file, to be unpacked first"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for begin, kind in _BEGINNINGS.items():
        if head.startswith(begin):
            return kind
    return next((kind for begin, kind in _MARKUP.items() if text.startswith(begin)), None)


def _size(path: Path) -> int:
    try:
        found = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise InputError(f"{path}: cannot be read ({kind}, not a file)")
    return found.st_size
