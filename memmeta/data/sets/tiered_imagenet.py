"""tieredImageNet: 608 classes of ImageNet, 779,165 images of 84x84, split by kind of thing.

Its files have up to 13 GB, so classes are read one at a time and no file is ever held whole.
"""

import csv
import functools
import itertools
from collections.abc import Sized
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memmeta.data.formats import images as formats
from memmeta.data.formats.npz import NpzRows
from memmeta.data.formats.png_pickle import PngList
from memmeta.data.formats.unpickling import as_text
from memmeta.data.sets.mini_imagenet import ADVICE, MEAN, STD
from memmeta.data.sources import SPLITS, Classes, ImageSource, Layout, choose
from memmeta.errors import InputError

SIZE = 84
SHAPE = (SIZE, SIZE, 3)
FOLDERS = ("", "tieredimagenet", "tiered-imagenet")

_SPLITS = resources.files("memmeta.data") / "splits"

MAX_CLASS_IMAGES = 10_000
"""Larger classes are refused: a class is held in memory, and ImageNet's have up to 1,300 images."""


def read_split(data_root: Path, split: str) -> Classes:
    """The classes of a split, named by their WordNet number, from the first complete form found.

    It is looked for in `data_root` and its folders tieredimagenet and tiered-imagenet.

    Raises:
        InputError: nothing complete found, or what was found is damaged.
    """
    layouts = itertools.chain.from_iterable(
        _layouts(data_root / folder, split) for folder in FOLDERS
    )
    return choose("tieredimagenet", list(layouts), ADVICE).read()


def _layouts(root: Path, split: str) -> list[Layout]:
    labels = {part: root / f"{part}_labels.pkl" for part in SPLITS}
    layouts = []
    for end, read in (("images_png.pkl", _png_pickle), ("images.npz", _npz)):
        images = {part: root / f"{part}_{end}" for part in SPLITS}
        layouts.append(
            Layout(
                f"{{train,val,test}}_{end} with {{train,val,test}}_labels.pkl",
                root,
                (*images.values(), *labels.values()),
                partial(read, images[split], labels[split], split),
            )
        )
    return layouts


def _png_pickle(path: Path, labels_path: Path, split: str) -> Classes:
    images = PngList(path)
    for name, rows in _rows_by_class(labels_path, images, split):
        yield name, images.read(rows, SIZE)


def _npz(path: Path, labels_path: Path, split: str) -> Classes:
    images = NpzRows(path, "images", SHAPE)
    for name, rows in _rows_by_class(labels_path, images, split):
        # They were decoded with OpenCV: blue, green, red.
        yield name, images.read(rows)[..., ::-1]


def _rows_by_class(path: Path, images: Sized, split: str) -> list[tuple[str, NDArray[np.int64]]]:
    """Class names in order, and where the images of each are."""
    content = formats.read_pickle(path)
    key = "label_specific" if "label_specific" in content else "labels"
    if key not in content:
        raise InputError(f"{path}: expected a dict with label_specific or labels")
    groups = formats.by_label(path, images, content[key])
    classes = _classes(split)
    if len(groups) != len(classes):
        raise InputError(f"{path}: expected {len(classes)} labels, it has {len(groups)}")
    for label, rows in groups.items():
        if len(rows) > MAX_CLASS_IMAGES:
            raise InputError(f"{path}: {len(rows)} images of label {label} are too many")
    named = _stated(content.get("label_specific_str"), classes)
    if set(named) != set(groups):
        # Nothing says which class a label is of: taken to rise with the place in the list.
        named = dict(zip(groups, classes, strict=True))
    return sorted(
        ((named[label], rows) for label, rows in groups.items()), key=lambda pair: pair[0]
    )


def _stated(names: object, classes: list[str]) -> dict[int, str]:
    """The class of each label, if a file says so, by WordNet numbers or in words; else nothing.

    Args:
        names: the name of class 0, 1, ..., as the file has them.
        classes: those there have to be.
    """
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        return {}
    numbers = _numbers()
    stated = [numbers.get(as_text(name), as_text(name)) for name in names]
    return dict(enumerate(stated)) if sorted(stated) == sorted(classes) else {}


def _classes(split: str) -> list[str]:
    """The WordNet numbers of a published split, in the order of its list."""
    text = (_SPLITS / f"tiered_imagenet_{split}.csv").read_text(encoding="utf-8")
    return [row["specific_wnid"] for row in csv.DictReader(text.splitlines())]


@functools.cache
def _numbers() -> dict[str, str]:
    """The WordNet number for the words of each of the 608 classes."""
    lines = (_SPLITS / "tiered_imagenet_words.tsv").read_text(encoding="utf-8").splitlines()
    return {words: number for number, words in (line.split("\t") for line in lines)}


TIERED_IMAGENET = ImageSource(
    "tieredimagenet", (3, SIZE, SIZE), read_split, MEAN, STD, mirror_keeps_class=True
)
