"""Folders of classes: `<class>/*.jpg`, or `{train,val,test}/<class>/*.jpg`."""

from collections.abc import Iterator
from pathlib import Path

from memmeta.data.layouts.entries import Below, Entry, FilePart, LeftOut, split_named
from memmeta.data.photos import find_classes
from memmeta.errors import cannot_read

FORM = "class folders"
LISTS_PATHS = False


def files(place: Path) -> list[Path]:
    """See `Layout.files`: the folder."""
    return [place] if place.is_dir() else []


def entries(files: list[Path], images: Path | None) -> Iterator[Entry | LeftOut]:
    """See `Layout.entries`. Images in subfolders of a class folder belong to the class."""
    del images
    (folder,) = files
    below = Below(folder)
    for split, place in _splits(folder):
        for label, found in find_classes(place, least=1).items():
            for path in found.images:
                below.check(path)
                yield Entry(split, label, str(path), FilePart(path))
            yield from map(LeftOut, found.others)


def _splits(folder: Path) -> list[tuple[str | None, Path]]:
    """The folder of each split; the folder itself if it has none.

    All visible folders have to be named after a split: `train` and `test` can be classes too.
    """
    try:
        folders = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    except OSError as error:
        raise cannot_read(folder, error) from None
    named = [(split_named(path.name), path) for path in sorted(folders)]
    if len(named) > 1 and all(split for split, _ in named):
        return named
    return [(None, folder)]
