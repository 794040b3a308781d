"""`base.json`, `val.json` and `novel.json`, as CloserLookFewShot writes them.

Chen et al., *A Closer Look at Few-shot Classification*, 2019. Each file has label_names,
image_names and image_labels, where a label is an index into label_names. The paths are those of the
machine that wrote the file, so leading folders that do not exist here are dropped.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from memmeta.data.formats.foreign import open_file, unexpected
from memmeta.data.layouts.entries import Below, Entry, FilePart, split_named, with_suffix
from memmeta.errors import InputError, cannot_read, shortened

FORM = "lists in JSON"
LISTS_PATHS = True

_EXPECTED = "a JSON file with label_names, image_names and image_labels"

_MOST_BYTES = 2**27
"""Larger lists are refused. One of a million files has about 100 MB."""


def files(place: Path) -> list[Path]:
    """See `Layout.files`: JSON files named after splits."""
    return [path for path in with_suffix(place, ".json") if split_named(path.stem)]


def entries(files: list[Path], images: Path | None) -> Iterator[Entry]:
    """See `Layout.entries`."""
    for path in files:
        names, paths, labels = _lists(path)
        below = Below(images or path.parent)
        dropped = _foreign_folders(below.folder, paths)
        for index, (name, label) in enumerate(zip(paths, labels, strict=True)):
            where = f"{path}: image {index}"
            if type(label) is not int or not 0 <= label < len(names):
                raise InputError(f"{where}: label: an index into label_names is expected")
            image = below.resolve("/".join(_parts(name)[dropped:]), where)
            yield Entry(split_named(path.stem), names[label], str(image), FilePart(image))


def _lists(path: Path) -> tuple[list[str], list[str], list[Any]]:
    try:
        with open_file(path) as file:
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise cannot_read(path, error) from None
    if len(text) > _MOST_BYTES:
        raise InputError(f"{path}: larger than the limit of {_MOST_BYTES} bytes")
    try:
        content = json.loads(text)
        names, paths, labels = (
            content[key] for key in ("label_names", "image_names", "image_labels")
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise unexpected(path, _EXPECTED) from None
    for key, values in (("label_names", names), ("image_names", paths)):
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise InputError(f"{path}: {key}: a list of strings is expected")
    if not isinstance(labels, list) or len(labels) != len(paths):
        raise InputError(f"{path}: image_labels: {len(paths)} numbers are expected")
    return names, paths, labels


def _foreign_folders(folder: Path, names: Sequence[str]) -> int:
    """How many leading folders of the paths to drop, judged by the first path."""
    parts = _parts(names[0]) if names else []
    for count in range(len(parts)):
        if (folder / Path(*parts[count:])).exists():
            return count
    if not parts or ".." in parts:
        return 0
    raise InputError(
        f"{folder}: has no {shortened(names[0])}, nor a file at the end of that path; give the "
        "folder of the images"
    )


def _parts(name: str) -> list[str]:
    parts = PurePosixPath(name.replace("\\", "/").replace("\0", "?")).parts
    return [part for part in parts if part != "/"]
