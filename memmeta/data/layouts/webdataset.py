"""Tar shards as `webdataset` writes them: `key.jpg` beside `key.cls`.

A shard named after a split (`train-000000.tar`) belongs to it. The tar files are not unpacked, and
no member is written to disk.
"""

import tarfile
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from memmeta.data.formats.foreign import open_file, unexpected
from memmeta.data.formats.images import MAX_IMAGE_BYTES
from memmeta.data.layouts.entries import Entry, FilePart, split_named, with_suffix
from memmeta.data.photos import SUFFIXES
from memmeta.errors import InputError, cannot_read, shortened

FORM = "tar shards"
LISTS_PATHS = False

_LONGEST_LABEL = 1000
"""Bytes of a label. Longer ones are refused."""

_LONGEST_HEADER = 2**20
"""Bytes that a header of a tar file may have, for example a long name."""


def files(place: Path) -> list[Path]:
    """See `Layout.files`: the tar files.

    Raises:
        InputError: some are compressed.
    """
    packed = [path for path in with_suffix(place, ".tgz", ".gz", ".xz", ".bz2") if _is_tar(path)]
    if packed:
        raise InputError(f"{packed[0]}: compressed; unpack it to a .tar file first")
    return with_suffix(place, ".tar")


def entries(files: list[Path], images: Path | None) -> Iterator[Entry]:
    """See `Layout.entries`."""
    del images
    for path in files:
        try:
            yield from _shard(path)
        except tarfile.TarError as error:
            if _begins_like_tar(path):
                raise InputError(f"{path}: a damaged tar file ({error})") from None
            raise unexpected(path, "a tar file") from None
        except OSError as error:
            raise cannot_read(path, error) from None


def _shard(path: Path) -> Iterator[Entry]:
    """The images of one shard. The members of one example follow each other."""
    split = split_named(path.stem)
    key, label, image = "", "", None
    with _Bounded(open_file(path).detach()) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            # TarFile would keep all members in memory.
            tar.members = []  # type: ignore[attr-defined]
            if not member.isreg() or member.issparse():
                continue
            folder, _, name = member.name.rpartition("/")
            stem, _, extension = name.partition(".")
            if f"{folder}/{stem}" != key:
                if image is not None:
                    yield _entry(path, split, key, label, image)
                key, label, image = f"{folder}/{stem}", "", None
            if extension.lower() == "cls":
                label = _label(path, member, file)
            elif f".{extension.lower()}" in SUFFIXES:
                image = member
    if image is not None:
        yield _entry(path, split, key, label, image)


def _entry(path: Path, split: str | None, key: str, label: str, member: tarfile.TarInfo) -> Entry:
    where = f"{path}: {shortened(member.name)}"
    if not label:
        raise InputError(f"{where}: has no class: {shortened(key.strip('/'))}.cls is expected")
    if member.size > MAX_IMAGE_BYTES:
        raise InputError(f"{where}: larger than the limit of {MAX_IMAGE_BYTES} bytes")
    return Entry(split, label, where, FilePart(path, member.offset_data, member.size))


def _label(path: Path, member: tarfile.TarInfo, file: BufferedReader) -> str:
    where = f"{path}: {shortened(member.name)}"
    if member.size > _LONGEST_LABEL:
        raise InputError(f"{where}: {member.size} bytes are too long for a class")
    after = file.tell()
    file.seek(member.offset_data)
    text = file.read(member.size)
    file.seek(after)
    try:
        return text.decode().strip()
    except UnicodeDecodeError:
        raise InputError(f"{where}: a class as text is expected") from None


def _begins_like_tar(path: Path) -> bool:
    with open_file(path) as file:
        return file.read(262)[257:] == b"ustar"


def _is_tar(path: Path) -> bool:
    return path.suffix.lower() == ".tgz" or path.stem.lower().endswith(".tar")


class _Bounded(BufferedReader):
    """A file that refuses long reads: TarFile reads headers of any size into memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes."""
        if size is None or not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError("a header is too long")
        return super().read(size)
