import json
import pickle
import shutil
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from memmeta.data import load
from memmeta.data.sources import SPLITS
from memmeta.errors import InputError
from tests.memmeta.data import on_disk

WRITERS = {
    "cache": partial(on_disk.mini_cache, python2=False),
    "cache of Python 2": partial(on_disk.mini_cache, python2=True),
    "cache, validation": partial(on_disk.mini_cache, python2=True, val="validation"),
    "category split": partial(on_disk.mini_category_split, stated=False),
    "category split, stated": partial(on_disk.mini_category_split, stated=True),
    "hdf5": on_disk.mini_hdf5,
    "image files": on_disk.mini_image_files,
    "image files of classes": partial(on_disk.mini_image_files, folder="images/{name}"),
    "tables of easyfsl": partial(
        on_disk.mini_image_files, folder="{name}", header="class_name,image_name"
    ),
    "split folders": on_disk.split_folders,
    "class folders": on_disk.mini_class_folders,
    "class folders in images": lambda splits, root: on_disk.mini_class_folders(
        splits, root / "images"
    ),
}


@pytest.fixture(scope="module")
def images() -> dict[str, on_disk.ByClass]:
    return on_disk.some_images("mini_imagenet", 84, 1, 2)


@pytest.fixture(scope="module")
def digest(images, tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("reference")
    on_disk.mini_hdf5(images, root)
    dataset = load("miniimagenet", root)
    assert dataset.input_shape == (3, 84, 84)
    for split in SPLITS:
        part = getattr(dataset, split)
        assert part.class_names == tuple(sorted(images[split]))
        for i, name in enumerate(part.class_names):
            found = part.images[part.offsets[i] : part.offsets[i + 1]]
            assert {x.tobytes() for x in found} == {x.tobytes() for x in images[split][name]}
    return dataset.digest


@pytest.mark.parametrize("form", WRITERS)
def test_all_forms_give_the_same_data(form, images, digest, tmp_path):
    WRITERS[form](images, tmp_path)
    assert load("miniimagenet", tmp_path).digest == digest


@pytest.mark.parametrize("folder", ["miniimagenet", "mini-imagenet", "mini_imagenet"])
def test_the_folders_that_are_searched(folder, images, digest, tmp_path):
    on_disk.mini_cache(images, tmp_path / folder, python2=False)
    assert load("miniimagenet", tmp_path).digest == digest


def test_image_files_of_other_sizes_are_resized(images, tmp_path):
    on_disk.mini_image_files(images, tmp_path)
    for path in (tmp_path / "images").iterdir():
        Image.new("RGB", (100, 120), (200, 100, 50)).save(path)
    dataset = load("miniimagenet", tmp_path)
    assert dataset.input_shape == (3, 84, 84)
    assert (np.asarray(dataset.val.images) == (200, 100, 50)).all()


def test_tables_select_images_of_class_folders(images, digest, tmp_path):
    on_disk.mini_image_files(images, tmp_path, folder="{name}")
    Image.new("RGB", (84, 84)).save(tmp_path / "n01532829" / "n01532829_9.png")
    assert load("miniimagenet", tmp_path).digest == digest


def test_folders_of_imagenet_need_tables(images, tmp_path):
    on_disk.mini_class_folders(images, tmp_path)
    for i in range(601):
        (tmp_path / "n03544143" / f"more_{i}.jpg").touch()
    with pytest.raises(InputError, match=r"n03544143: 60\d images, .* has 600 .*train.csv"):
        load("miniimagenet", tmp_path)


def test_an_incomplete_split_folder_is_named(images, tmp_path):
    on_disk.split_folders(images, tmp_path)
    shutil.rmtree(tmp_path / "val" / "n01855672")
    with pytest.raises(InputError, match=r"not .*/val/n01855672"):
        load("miniimagenet", tmp_path)


def test_the_error_for_missing_data_lists_the_expected_files(tmp_path):
    with pytest.raises(InputError) as caught:
        load("miniimagenet", tmp_path)
    for part in ("mini-imagenet-cache", "category_split", "hdf5", "csv", str(tmp_path)):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(class_dict=[]), "class_dict: expected a dict of class names"),
        (lambda c: c["class_dict"].popitem(), "1 classes missing"),
        (lambda c: c["class_dict"].update(dog=np.array([1])), r"1 unknown classes \(such as dog\)"),
        (lambda c: c["class_dict"].update(n01532829=[10**6]), r"n01532829\]: expected indices"),
        (lambda c: c["class_dict"].update(n01532829=[-1]), r"n01532829\]: expected indices"),
        (lambda c: c["class_dict"].update(n01532829=[]), r"n01532829\]: expected"),
        (lambda c: c["class_dict"].update(n01532829=[1, 1]), "image 1 is listed twice"),
        (lambda c: c["class_dict"].update(n01532829=c["class_dict"]["n01558993"]), "listed twice"),
        (lambda c: c["class_dict"].update(n01532829=None), r"expected a list of integers"),
    ],
)
def test_wrong_caches(images, tmp_path, change, message):
    on_disk.mini_cache(images, tmp_path, python2=False)
    path = tmp_path / "mini-imagenet-cache-train.pkl"
    content = pickle.loads(path.read_bytes())
    change(content)
    on_disk.dump(content, path)
    with pytest.raises(InputError, match=message) as caught:
        load("miniimagenet", tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "labels",
    [{}, ["n01532829"], ["n01532829"] * 2, {"n01532829": 1}, [1, 2], "n01532829", [["n01532829"]]],
)
def test_wrong_names_for_hdf5(images, tmp_path, labels):
    on_disk.mini_hdf5(images, tmp_path)
    path = tmp_path / "train_labels.json"
    path.write_text(json.dumps(labels))
    with pytest.raises(
        InputError, match=r"train_labels.json: (expected|not the published|n0.* twice)"
    ):
        load("miniimagenet", tmp_path)


def rewrite(path: Path, name: str, **options: object) -> None:
    with h5py.File(path, "a") as file:
        del file["datasets"][name]
        if options:
            file["datasets"].create_dataset(name, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "found none"),
        ({"data": np.zeros((2, 84, 84, 3))}, "got float64"),
        ({"data": np.zeros((2, 32, 32, 3), np.uint8)}, r"got uint8 \[2, 32, 32, 3\]"),
        ({"data": np.uint8(3)}, r"got uint8 \[\]"),
        ({"shape": (10**9, 84, 84, 3), "dtype": "u1", "chunks": (1, 84, 84, 3)}, "of memory"),
    ],
)
def test_wrong_hdf5(images, tmp_path, options, message):
    on_disk.mini_hdf5(images, tmp_path)
    rewrite(tmp_path / "val_data.hdf5", "n01855672", **options)
    with pytest.raises(InputError, match=message) as caught:
        load("miniimagenet", tmp_path)
    assert "val_data.hdf5" in str(caught.value)
    assert "datasets/n01855672" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../../secret.png,n01532829", "line 2: a filename .* folder"),
        ("n01532829_0.JPEG,n01532829", "line 3: .* is listed twice, .* line 2"),
        ("n01532829.png", "line 2: expected a filename and a label"),
        ("nowhere.png,n01532829", r"nowhere.png: cannot be read \(No such file"),
    ],
)
def test_wrong_tables(images, tmp_path, line, message):
    on_disk.mini_image_files(images, tmp_path)
    path = tmp_path / "train.csv"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, line, *lines]))
    with pytest.raises(InputError, match=message):
        load("miniimagenet", tmp_path)
