"""Every layout gives the same data set, and hostile ones are refused in one line."""

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memmeta.data import store
from memmeta.data.layouts.listing import list_images
from memmeta.data.preparation import Recipe, prepare_images
from memmeta.errors import InputError
from tests.memmeta.data import on_disk
from tests.memmeta.data.layouts import writers

NAMES = {
    "train": ["ant", "bee", "cat", "naïve owl"],
    "val": ["dog", "eel"],
    "test": ["fox", "gnu", "hen"],
}
SPLITS = on_disk.patterns(NAMES, 12, 2, 40)


@pytest.fixture(scope="module")
def digest(tmp_path_factory) -> str:
    return store.load(writers.source(SPLITS), tmp_path_factory.mktemp("memory")).digest


@pytest.mark.parametrize(
    "write",
    [
        writers.split_folders,
        writers.class_folders,
        writers.one_table,
        writers.tables,
        writers.json_lists,
        writers.parquet,
        writers.shards,
    ],
)
def test_the_same_images_are_the_same_data_set_in_every_layout(write, digest, tmp_path):
    write(SPLITS, tmp_path / "photos")
    split = tmp_path / "split.csv"
    recipe = Recipe(
        "birds", tmp_path / "photos", split=split if split.exists() else None, image_size=12
    )
    prepare_images(recipe, tmp_path)
    dataset = store.load(writers.source(SPLITS), tmp_path)
    assert dataset.digest == digest
    assert {split: list(getattr(dataset, split).class_names) for split in NAMES} == NAMES


def test_a_split_table_replaces_the_splits_of_the_layout(tmp_path):
    writers.split_folders(SPLITS, tmp_path / "photos")
    labels = [label for names in NAMES.values() for label in names]
    rows = [
        ("label", "split"),
        *((label, ("train", "val", "test")[i % 3]) for i, label in enumerate(labels)),
    ]
    table = writers.table(tmp_path / "split.csv", rows)
    prepare_images(Recipe("birds", tmp_path / "photos", split=table, image_size=12), tmp_path)
    dataset = store.load(writers.source(SPLITS), tmp_path)
    assert list(dataset.train.class_names) == sorted(labels[::3])


def test_paths_of_a_table_are_relative_to_the_given_folder(tmp_path):
    image = writers.png(SPLITS["train"]["ant"][0])
    writers.put(tmp_path / "elsewhere" / "a.png", image)
    table = writers.table(tmp_path / "list.csv", [("file", "label"), ("a.png", "ant")])
    (entry,) = list_images(table, tmp_path / "elsewhere").entries
    assert (entry.split, entry.label, entry.content.read()) == (None, "ant", image)


def folders(root: Path) -> None:
    for label in ("ant", "bee", "cat"):
        writers.put(root / label / "0.png", writers.png(SPLITS["train"]["ant"][0]))


def a_link_out(root: Path) -> None:
    folders(root)
    secret = writers.put(root.with_name("secret.png"), b"secret")
    (root / "ant" / "1.png").symlink_to(secret)


def a_class_that_is_a_link_out(root: Path) -> None:
    folders(root)
    writers.put(root.with_name("elsewhere") / "0.png", b"secret")
    (root / "dog").symlink_to(root.with_name("elsewhere"))


def rows(*lines: tuple[str, ...]):
    def write(root: Path) -> None:
        writers.put(root / "inside.png", b"an image")
        writers.table(root / "list.csv", [("file", "label"), *lines])

    return write


def lists(**changes: object):
    def write(root: Path) -> None:
        writers.put(root / "a.png", b"an image")
        content = {"label_names": ["ant"], "image_names": ["a.png"], "image_labels": [0]}
        writers.put(root / "base.json", json.dumps(content | changes).encode())

    return write


def tar(*members: tuple[str, bytes]):
    def write(root: Path) -> None:
        root.mkdir()
        with tarfile.open(root / "train-0.tar", "w") as file:
            for name, content in members:
                writers.member(file, name, content)

    return write


def a_huge_tar_header(root: Path) -> None:
    """A long name of 8 GiB, which tarfile would read into memory."""
    root.mkdir()
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**33 - 1
    (root / "train-0.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))


def parquet(rows: list[dict[str, object]]):
    def write(root: Path) -> None:
        root.mkdir()
        pq.write_table(pa.Table.from_pylist(rows), root / "a.parquet")

    return write


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda _: None, "no such folder"),
        (lambda root: root.mkdir(), "a folder for each class is expected"),
        (a_link_out, "is a link that leads out of"),
        (a_class_that_is_a_link_out, "leads out of"),
        (rows(("../secret.png", "ant")), "list.csv: line 2: ../secret.png leads out of"),
        (rows(("inside.png", "ant"), ("/etc/passwd", "ant")), "line 3: /etc/passwd leads out of"),
        (rows(("a\\..\\..\\b.png", "ant")), "leads out of"),
        (rows(("inside.png", "ant"), ("inside.png", "bee")), "line 3: inside.png is listed twice"),
        (rows(("inside.png", "")), "line 2: a cell is empty"),
        (rows(), "no images"),
        (lists(image_names=["../../etc/passwd"]), "leads out of"),
        (lists(image_names=["/etc/passwd"]), "nor a file at the end of that path"),
        (lists(image_labels=[1]), "image 0: label: an index into label_names"),
        (lists(image_labels=[True]), "image 0: label: an index into label_names"),
        (lists(image_labels=[]), "image_labels: 1 numbers are expected"),
        (lists(image_names="a.png"), "image_names: a list of strings"),
        (lambda root: writers.put(root / "base.json", b"[" * 100_000), "not a JSON file with"),
        (tar(("a.png", b"x")), "has no class: a.cls is expected"),
        (tar(("a.cls", b"x" * 2000), ("a.png", b"x")), "too long for a class"),
        (tar(("a.cls", b"\xff"), ("a.png", b"x")), "a class as text"),
        (a_huge_tar_header, "a damaged tar file"),
        (lambda root: writers.put(root / "a.tar.gz", b"\x1f\x8b"), "compressed; unpack it"),
        (lambda root: writers.put(root / "a.tar", b"<html>"), "a web page, not a tar file"),
        (lambda root: writers.put(root / "a.parquet", b"PAR1" * 9), "not a Parquet file"),
        (parquet([{"picture": b"x", "label": 1}]), "the columns image and label"),
        (parquet([{"image": b"x", "label": 1.5}]), "numbers or names are expected"),
    ],
)
def test_hostile_and_damaged_folders_are_refused_in_one_line(write, said, tmp_path):
    write(tmp_path / "photos")
    with pytest.raises(InputError) as error:
        list_images(tmp_path / "photos")
    assert said in error.value.message
    assert "\n" not in error.value.message


def test_links_inside_the_folder_are_followed(tmp_path):
    folders(tmp_path / "photos")
    (tmp_path / "photos" / "ant" / "1.png").symlink_to("0.png")
    assert len(list_images(tmp_path / "photos").entries) == 4


def test_images_of_parquet_are_read_in_any_order(tmp_path):
    contents = [os.urandom(50) for _ in range(1000)]
    parquet([{"image": content, "label": "ant"} for content in contents])(tmp_path / "photos")
    entries = list_images(tmp_path / "photos").entries
    order = np.random.default_rng(0).permutation(1000)[:50]
    assert [entries[row].content.read() for row in order] == [contents[row] for row in order]


def test_an_image_of_parquet_that_is_only_a_path_is_refused(tmp_path):
    parquet([{"image": {"bytes": None, "path": "/etc/passwd"}, "label": 0}])(tmp_path / "photos")
    (entry,) = list_images(tmp_path / "photos").entries
    with pytest.raises(InputError, match="has no bytes of an image"):
        entry.content.read()
