"""tieredImageNet: 608 classes of ImageNet, 779,165 images of 84x84, split by broader category.

Ren et al., *Meta-Learning for Semi-Supervised Few-Shot Classification*, 2018.

Its files have up to 13 GB, so only one class at a time is in memory.
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
"""Larger classes are rejected: a class is held in memory. ImageNet's have up to 1,300 images."""


def read_split(data_root: Path, split: str) -> Classes:
    """Read the classes of a split from the first complete form of the data.

    Class names are WordNet IDs. Searches `data_root` and its folders tieredimagenet and
    tiered-imagenet.

    Raises:
        InputError: no form is complete, or its files are damaged.
    """
    layouts = itertools.chain.from_iterable(
        _layouts(data_root / folder, split) for folder in FOLDERS
    )
    return choose("tieredimagenet", list(layouts), ADVICE).read()


def _layouts(root: Path, split: str) -> list[Layout]:
    labels = {name: root / f"{name}_labels.pkl" for name in SPLITS}
    layouts = []
    for end, read in (("images_png.pkl", _png_pickle), ("images.npz", _npz)):
        images = {name: root / f"{name}_{end}" for name in SPLITS}
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
        # The images were decoded with OpenCV: blue, green, red.
        yield name, images.read(rows)[..., ::-1]


def _rows_by_class(path: Path, images: Sized, split: str) -> list[tuple[str, NDArray[np.int64]]]:
    """Class names in order, with the indices of their images."""
    content = formats.read_pickle(path)
    key = "label_specific" if "label_specific" in content else "labels"
    if key not in content:
        raise InputError(f"{path}: expected a dict with label_specific or labels")
    groups = formats.by_label(path, images, content[key])
    classes = _classes(split)
    if len(groups) != len(classes):
        raise InputError(f"{path}: expected {len(classes)} labels, got {len(groups)}")
    for label, rows in groups.items():
        if len(rows) > MAX_CLASS_IMAGES:
            raise InputError(
                f"{path}: {len(rows)} images of label {label} exceed the limit of "
                f"{MAX_CLASS_IMAGES}"
            )
    class_of = _named_labels(content.get("label_specific_str"), classes)
    if set(class_of) != set(groups):
        # The file does not name the classes, so assume that labels follow the published order.
        class_of = dict(zip(groups, classes, strict=True))
    return sorted(
        ((class_of[label], rows) for label, rows in groups.items()), key=lambda pair: pair[0]
    )


def _named_labels(names: object, classes: list[str]) -> dict[int, str]:
    """The class of each label, if the file names the classes; otherwise empty.

    Args:
        names: the names of classes 0, 1, ... in the file, as WordNet IDs or words.
        classes: the expected WordNet IDs.
    """
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        return {}
    ids = _wordnet_ids()
    named = [ids.get(as_text(name), as_text(name)) for name in names]
    return dict(enumerate(named)) if sorted(named) == sorted(classes) else {}


def _classes(split: str) -> list[str]:
    """The WordNet IDs of a published split, in the order of its list."""
    text = (_SPLITS / f"tiered_imagenet_{split}.csv").read_text(encoding="utf-8")
    return [row["specific_wnid"] for row in csv.DictReader(text.splitlines())]


@functools.cache
def _wordnet_ids() -> dict[str, str]:
    """WordNet IDs of the 608 classes by their words."""
    lines = (_SPLITS / "tiered_imagenet_words.tsv").read_text(encoding="utf-8").splitlines()
    return {words: wordnet_id for wordnet_id, words in (line.split("\t") for line in lines)}


TIERED_IMAGENET = ImageSource(
    "tieredimagenet", (3, SIZE, SIZE), read_split, MEAN, STD, mirror_keeps_class=True
)
