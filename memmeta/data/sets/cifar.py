"""CIFAR-FS and FC100, two splits of the classes of CIFAR-100 for few-shot learning.

CIFAR-FS: Bertinetto et al., *Meta-learning with differentiable closed-form solvers*, 2019. FC100:
Oreshkin et al., *TADAM: Task dependent adaptive metric for improved few-shot learning*, 2018.
"""

import functools
import hashlib
import itertools
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np

from memmeta.data.formats import downloads
from memmeta.data.formats import images as formats
from memmeta.data.sources import (
    SPLITS,
    Classes,
    Images,
    ImageSource,
    Layout,
    choose,
    class_folders,
    split_classes,
)
from memmeta.errors import InputError

SIZE = 32
SHAPE = (SIZE, SIZE, 3)
MEAN = (129.377, 124.106, 112.478)
STD = (68.209, 65.431, 70.459)
FOLDERS = {
    "cifar_fs": ("", "cifar-fs", "cifar_fs", "cifarfs", "CIFAR-FS"),
    "fc100": ("", "fc100", "FC100"),
}
"""Folders of the data root that are searched."""

CLASS_FOLDERS = (
    "cifar100/data/{name}",  # the form of Bertinetto et al.
    "data/{name}",
    "{split}/{name}",
    "processed/{split}/{name}",  # learn2learn
)


def read_split(stem: str, pickle_stem: str, data_root: Path, split: str) -> Classes:
    """Read the classes of a split from the first complete form of the data.

    Searches `data_root` and its folders in `FOLDERS`. In each, the forms are class folders, then
    pickles, then torchvision's files.

    Args:
        stem: the data set, as in the file names of the class lists.
        pickle_stem: the data set, as in the file names of the pickles.
        data_root: the folder with the files.
        split: train, val or test.

    Raises:
        InputError: no form is complete, or its files are damaged.
    """
    layouts = itertools.chain.from_iterable(
        _layouts(data_root / folder, stem, pickle_stem, split) for folder in FOLDERS[stem]
    )
    advice = f"To download the last: memmeta data download {stem} --data-root {data_root}"
    return choose(stem, list(layouts), advice).read()


def _layouts(root: Path, stem: str, pickle_stem: str, split: str) -> list[Layout]:
    names = split_classes(stem, split)
    read = partial(formats.read_classes, size=SIZE)
    pickles = {name: root / f"{pickle_stem}_{name}.pickle" for name in SPLITS}
    python = root / "cifar-100-python"
    return [
        *(class_folders(template, root, stem, split, read) for template in CLASS_FOLDERS),
        Layout(
            f"{pickle_stem}_{{train,val,test}}.pickle",
            root,
            tuple(pickles.values()),
            partial(_pickle, pickles[split], names),
        ),
        Layout(
            "cifar-100-python/{train,test,meta}",
            root,
            tuple(python / name for name in ("train", "test", "meta")),
            partial(_torchvision, python, names),
        ),
    ]


def download(data_root: Path) -> None:
    """Download CIFAR-100 (161 MiB) from its authors' site into `data_root`/cifar-100-python.

    Raises:
        InputError: a network or disk error.
    """
    downloads.fetch("CIFAR100", data_root)


def _pickle(path: Path, names: list[str]) -> Classes:
    content = formats.read_pickle(path, "data", "labels")
    images = formats.as_images(path, "data", content["data"], SHAPE)
    groups = formats.by_label(path, images, content["labels"])
    if len(groups) != len(names):
        raise InputError(f"{path}: expected {len(names)} labels, got {len(groups)}")
    known = _fingerprints()
    by_content = {known.get(fingerprint(images[rows]), ""): label for label, rows in groups.items()}
    labels = name_labels(names, list(groups), by_content, sorted(known.values()))
    for name in sorted(labels):
        yield name, images[groups[labels[name]]]


def _torchvision(root: Path, names: list[str]) -> Classes:
    meta = formats.read_pickle(root / "meta", "fine_label_names")
    labels = {
        name: label
        for label, name in enumerate(
            formats.as_texts(root / "meta", "fine_label_names", meta["fine_label_names"])
        )
    }
    formats.check_names(root / "meta", labels, _fingerprints().values())
    files = []
    for path in (root / "train", root / "test"):
        content = formats.read_pickle(path, "data", "fine_labels")
        flat = formats.as_images(path, "data", content["data"], (3 * SIZE * SIZE,))
        images = flat.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)
        files.append((images, formats.by_label(path, images, content["fine_labels"])))
    for name in sorted(names):
        label = labels[name]
        class_images = [images[groups[label]] for images, groups in files if label in groups]
        if not class_images:
            raise InputError(f"{root}: expected images of class {name}, found none")
        yield name, np.concatenate(class_images)


def name_labels(
    names: list[str], labels: list[int], by_content: dict[str, int], all_classes: list[str]
) -> dict[str, int]:
    """The label of each class name.

    Published pickles number the classes differently. Complete classes are identified by their
    images. Otherwise the labels are class numbers of CIFAR-100 if they match those of the split,
    and else positions in the class list of the split.

    Args:
        names: the classes of the split, in the order of its list.
        labels: the same number of labels, in ascending order.
        by_content: the labels of the classes identified by their images.
        all_classes: the classes of CIFAR-100, in the order of their numbers.
    """
    if by_content.keys() == set(names):
        return by_content
    by_number = {name: all_classes.index(name) for name in names}
    if set(by_number.values()) == set(labels):
        return by_number
    return dict(zip(names, labels, strict=True))


def fingerprint(images: Images) -> str:
    """16 hex digits that identify a set of images, independent of their order."""
    digest = hashlib.sha256()
    for image in sorted(image.tobytes() for image in images):
        digest.update(image)
    return digest.hexdigest()[:16]


@functools.cache
def _fingerprints() -> dict[str, str]:
    """Class names by the fingerprint of the 600 images of each of the 100 classes."""
    path = resources.files("memmeta.data") / "splits" / "cifar100_fingerprints.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()
    return {digits: name for name, digits in (line.split("\t") for line in lines)}


def _source(name: str, pickle_stem: str) -> ImageSource:
    read = partial(read_split, name, pickle_stem)
    return ImageSource(
        name, (3, SIZE, SIZE), read, MEAN, STD, download=download, mirror_keeps_class=True
    )


CIFAR_FS = _source("cifar_fs", "CIFAR_FS")
FC100 = _source("fc100", "FC100")
