"""Image files of users, in folders."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from memmeta.data.formats.images import read_photo
from memmeta.data.images import as_stored
from memmeta.errors import InputError, cannot_read

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Endings of image files, in lower case."""


class Found(NamedTuple):
    """The files in a folder and its subfolders, sorted."""

    images: list[Path]
    others: list[Path]
    """Files with other endings."""


def find_images(folder: Path) -> Found:
    """The files in a folder and its subfolders.

    Hidden files and folders are skipped: macOS writes a `._x.png` next to `x.png` that contains no
    image.

    Raises:
        InputError: the folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise cannot_read(Path(error.filename or folder), error)

    found = Found([], [])
    for place, subfolders, names in os.walk(folder, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                part = found.images if _is_image(name) else found.others
                part.append(Path(place, name))
    return Found(sorted(found.images), sorted(found.others))


def find_classes(folder: Path, least: int = 2) -> dict[str, Found]:
    """The files of each class, from folders named after the classes.

    Args:
        folder: the folder.
        least: the number of classes that it needs.

    Raises:
        InputError: the folder cannot be read, has too few class folders, one of them has no images,
            or an image is in no class folder.
    """
    classes: dict[str, Found] = {}
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise cannot_read(folder, error) from None
    for entry in entries:
        if entry.is_dir():
            classes[entry.name] = find_images(entry)
            if not classes[entry.name].images:
                raise InputError(f"{entry}: no images ({' '.join(SUFFIXES)})")
        elif _is_image(entry.name):
            raise InputError(f"{entry}: is in no class folder: {folder}/CLASS/IMAGE is expected")
    if len(classes) < least:
        raise InputError(
            f"{folder}: a folder for each class is expected, {least} or more, got {len(classes)}"
        )
    return classes


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def read_stored(paths: Iterable[Path], input_shape: tuple[int, ...]) -> Tensor:
    """Read image files in the form in which a model stores images.

    One file is in memory at a time.

    Args:
        paths: n > 0 files.
        input_shape: (C, H, W) of the model.

    Returns:
        uint8 [n, H, W, C].

    Raises:
        InputError: a file is not an image, is damaged, or is too large.
    """
    return torch.cat([as_stored([read_photo(path)], input_shape, str(path)) for path in paths])
