"""Omniglot: 1623 characters of 50 alphabets, 20 drawings each, in 28x28 grey.

Lake, Salakhutdinov and Tenenbaum, *Human-level concept learning through probabilistic program
induction*, 2015.

Published images are 105x105 pixels, black on white. They are inverted here, as in glyphs, so that
the background is 0, like the padding of augmented images.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from memmeta.data.formats import downloads
from memmeta.data.formats import images as formats
from memmeta.data.formats.archives import ZippedImages
from memmeta.data.sources import Classes, ImageSource, Layout, choose, split_classes
from memmeta.errors import InputError, shortened

SIZE = 28
PARTS = ("images_background", "images_evaluation")
FOLDERS = (
    "omniglot-py",  # torchvision
    "",
    "omniglot",
    "python",  # the authors' repository
    "omniglot/python",
    "omniglot-master/python",
)

Files = Callable[[str], Iterator[tuple[str, bytes]]]
"""Yields the image files of a class: (location for messages, content)."""


def read_split(data_root: Path, split: str) -> Classes:
    """Read the classes of a split from the first complete form of the data.

    Class names are part/alphabet/character. The split is that of Vinyals et al. (2016) with
    validation classes, 1028/172/423. Searches `data_root` and its folders in `FOLDERS`.

    Raises:
        InputError: no form is complete, or its files are damaged.
    """
    names = split_classes("omniglot_vinyals", split)
    layouts = []
    for root in (data_root / folder for folder in FOLDERS):
        folders = tuple(root / part for part in PARTS)
        zips = tuple(root / f"{part}.zip" for part in PARTS)
        layouts += [
            Layout(
                "images_{background,evaluation}/<alphabet>/<character>/*.png",
                root,
                folders,
                partial(_classes, names, partial(_in_folder, root)),
            ),
            Layout(
                "images_{background,evaluation}.zip",
                root,
                zips,
                partial(_zipped, names, zips),
            ),
        ]
    advice = f"To download it: memmeta data download omniglot --data-root {data_root}"
    return choose("omniglot", layouts, advice).read()


def download(data_root: Path) -> None:
    """Download Omniglot (15 MiB) from its authors' site into `data_root`/omniglot-py.

    Raises:
        InputError: a network or disk error.
    """
    for background in (True, False):
        downloads.fetch("Omniglot", data_root, background=background)


def _classes(names: list[str], files: Files) -> Classes:
    for name in sorted(names):
        images = [
            255 - formats.decode_image(where, content, SIZE, resize=True, grey=True)
            for where, content in files(name)
        ]
        if not images:
            raise InputError(f"omniglot: expected PNG images of {name}, found none")
        yield name, np.stack(images)


def _in_folder(root: Path, name: str) -> Iterator[tuple[str, bytes]]:
    for path in formats.image_files(root / name):
        yield str(path), formats.read_file(path)


def _zipped(names: list[str], paths: tuple[Path, ...]) -> Classes:
    with contextlib.ExitStack() as stack:
        archives = {path.stem: stack.enter_context(ZippedImages(path)) for path in paths}

        def files(name: str) -> Iterator[tuple[str, bytes]]:
            archive = archives[name.split("/")[0]]
            for member, content in archive.read(name):
                yield f"{archive.path}: {shortened(member)}", content

        yield from _classes(names, files)


OMNIGLOT = ImageSource(
    "omniglot", (1, SIZE, SIZE), read_split, download=download, rotation_makes_class=True
)
