"""miniImageNet: 100 classes of ImageNet, 600 images each, 84x84.

Vinyals et al., *Matching Networks for One Shot Learning*, 2016, with the split of Ravi and
Larochelle, *Optimization as a Model for Few-Shot Learning*, 2017.
"""

import itertools
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from memmeta.data.formats import images as formats
from memmeta.data.formats.unpickling import as_text
from memmeta.data.sources import (
    SPLITS,
    Classes,
    ImageSource,
    Layout,
    choose,
    class_folders,
    split_classes,
)
from memmeta.errors import InputError

SIZE = 84
SHAPE = (SIZE, SIZE, 3)
MEAN = (120.396, 115.594, 104.540)
STD = (70.682, 68.276, 72.545)
FOLDERS = ("", "miniimagenet", "mini-imagenet", "mini_imagenet", "miniImageNet", "Mini-ImageNet")
CLASS_SIZE = 600
"""Images of a class. The folders of ImageNet, from which they were selected, have up to 1,300."""

ADVICE = (
    "ImageNet's licence does not allow redistribution: get one of these forms from someone who has "
    "it, or from the papers' repositories, and put it there."
)


def read_split(data_root: Path, split: str) -> Classes:
    """Read the classes of a split from the first complete form of the data.

    Searches `data_root` and its folders in `FOLDERS`.

    Raises:
        InputError: no form is complete, or its files are damaged.
    """
    layouts = itertools.chain.from_iterable(
        _layouts(data_root / folder, split, split_classes("mini_imagenet", split))
        for folder in FOLDERS
    )
    return choose("miniimagenet", list(layouts), ADVICE).read()


def _layouts(root: Path, split: str, names: list[str]) -> list[Layout]:
    layouts = []
    for val in ("val", "validation"):
        caches = {
            name: root / f"mini-imagenet-cache-{val if name == 'val' else name}.pkl"
            for name in SPLITS
        }
        layouts.append(
            Layout(
                f"mini-imagenet-cache-{{train,{val},test}}.pkl",
                root,
                tuple(caches.values()),
                partial(_cache, caches[split], names),
            )
        )
    pickles = {
        name: root
        / f"miniImageNet_category_split_{name.replace('train', 'train_phase_train')}.pickle"
        for name in SPLITS
    }
    tables = {name: root / f"{name}.csv" for name in SPLITS}
    return [
        *layouts,
        Layout(
            "miniImageNet_category_split_{train_phase_train,val,test}.pickle",
            root,
            tuple(pickles.values()),
            partial(_category_split, pickles[split], names),
        ),
        Layout(
            "{train,val,test}_data.hdf5 with {train,val,test}_labels.json",
            root,
            tuple(
                root / f"{name}_{end}" for name in SPLITS for end in ("data.hdf5", "labels.json")
            ),
            partial(_hdf5, root / f"{split}_data.hdf5", root / f"{split}_labels.json", names),
        ),
        Layout(
            "{train,val,test}.csv with images/",
            root,
            (*tables.values(), root / "images"),
            partial(_image_files, tables[split], root / "images", names),
        ),
        Layout(
            "{train,val,test}.csv with <class>/",
            root,
            (*tables.values(), root / names[0]),
            partial(_image_files, tables[split], root, names),
        ),
        *(
            class_folders(template, root, "mini_imagenet", split, _class_folders)
            for template in ("{split}/{name}", "images/{name}", "{name}")
        ),
    ]


def _cache(path: Path, names: list[str]) -> Classes:
    content = formats.read_pickle(path, "image_data", "class_dict")
    images = formats.as_images(path, "image_data", content["image_data"], SHAPE)
    indices = formats.as_indices(path, "class_dict", content["class_dict"])
    formats.check_names(path, indices, names)
    listed, counts = np.unique(np.concatenate(list(indices.values())), return_counts=True)
    if (counts > 1).any():
        duplicate = listed[counts > 1][0]
        raise InputError(f"{path}: class_dict: image {duplicate} is listed twice")
    for name in sorted(names):
        rows = indices[name]
        if len(rows) == 0 or rows.min() < 0 or rows.max() >= len(images):
            raise InputError(
                f"{path}: class_dict[{name}]: expected indices of the {len(images)} images"
            )
        yield name, images[rows]


def _category_split(path: Path, names: list[str]) -> Classes:
    content = formats.read_pickle(path, "data", "labels")
    images = formats.as_images(path, "data", content["data"], SHAPE)
    groups = formats.by_label(path, images, content["labels"])
    if len(groups) != len(names):
        raise InputError(f"{path}: expected {len(names)} labels, got {len(groups)}")
    # Labels number the classes in the order of their names, starting from 0, 64 or 80, unless the
    # file contains a mapping.
    labels = dict(zip(sorted(names), sorted(groups), strict=True))
    mapping = content.get("catname2label")
    if isinstance(mapping, dict):
        by_name = {as_text(key): label for key, label in mapping.items()}
        if set(names) <= by_name.keys():
            labels = {name: by_name[name] for name in labels}
    for name, label in labels.items():
        if not isinstance(label, int) or label not in groups:
            raise InputError(f"{path}: expected images of class {name}, found none")
        yield name, images[groups[label]]


def _hdf5(path: Path, names_path: Path, names: list[str]) -> Classes:
    formats.check_names(names_path, formats.read_names(names_path), names)
    for name in sorted(names):
        yield name, formats.read_hdf5(path, name, SHAPE)


def _image_files(path: Path, folder: Path, names: list[str]) -> Classes:
    """Read the files that a table lists: in `folder`, or in the folders of their classes there."""
    files = formats.read_table(path)
    formats.check_names(path, files, names)
    for name in sorted(names):
        own = folder / name
        place = own if own.is_dir() else folder
        images = [formats.read_image(place / file, SIZE, resize=True) for file in files[name]]
        yield name, np.stack(images)


def _class_folders(folders: Mapping[str, Path]) -> Classes:
    for folder in folders.values():
        count = len(formats.image_files(folder))
        if count > CLASS_SIZE:
            raise InputError(
                f"{folder}: {count} images, and miniImageNet has {CLASS_SIZE} of a class; "
                "train.csv, val.csv and test.csv beside the class folders select them"
            )
    yield from formats.read_classes(folders, SIZE, resize=True)


MINI_IMAGENET = ImageSource(
    "miniimagenet", (3, SIZE, SIZE), read_split, MEAN, STD, mirror_keeps_class=True
)
