"""The same images in every layout. Files are PNG, so that pixels are kept."""

import csv
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from memmeta.data.sources import Classes, ImageSource
from tests.memmeta.data.on_disk import ByClass

Splits = dict[str, ByClass]


def source(splits: Splits, name: str = "birds") -> ImageSource:
    """The images as a data set in memory, which the cache writes like every built-in one."""

    def read(data_root: Path, split: str) -> Classes:
        del data_root
        yield from sorted(splits[split].items())

    shape = next(iter(splits["train"].values())).shape
    return ImageSource(name, (shape[3], *shape[1:3]), read)


def png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image.squeeze()).save(content, "PNG")
    return content.getvalue()


def each(splits: Splits) -> Iterator[tuple[str, str, int, bytes]]:
    """Split, class, number and file of every image."""
    for split, classes in splits.items():
        for label, images in classes.items():
            for number, image in enumerate(images):
                yield split, label, number, png(image)


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def split_folders(splits: Splits, root: Path) -> None:
    for split, label, number, content in each(splits):
        put(root / {"val": "Validation"}.get(split, split) / label / f"{number}.PNG", content)


def class_folders(splits: Splits, root: Path) -> None:
    """Without splits: a table beside the folder has them."""
    for _, label, number, content in each(splits):
        put(root / label / f"{number}.png", content)
    rows = [
        ("class", "split"),
        *((label, split) for split, names in splits.items() for label in names),
    ]
    table(root.with_name("split.csv"), rows)


def table(path: Path, rows: list[tuple[str, ...]], encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows(rows)
    return path


def one_table(splits: Splits, root: Path) -> None:
    rows = [("Split", "FileName", "label")]
    for index, (split, label, _, content) in enumerate(each(splits)):
        put(root / "images" / f"{index}.png", content)
        rows.append((split, f"{index}.png", label))
    table(root / "everything.csv", rows, "utf-16")


def tables(splits: Splits, root: Path) -> None:
    rows: dict[str, list[tuple[str, ...]]] = {
        split: [("image_name", "class_name")] for split in splits
    }
    for split, label, number, content in each(splits):
        put(root / "all" / label / f"{number}.png", content)
        rows[split].append((f"all\\{label}\\{number}.png", label))
    for split, some in rows.items():
        table(root / f"{split}.csv", some)


def json_lists(splits: Splits, root: Path) -> None:
    """As CloserLookFewShot: absolute paths of another machine, labels that count all classes."""
    names = [label for classes in splits.values() for label in classes]
    for split, stem in (("train", "base"), ("val", "val"), ("test", "novel")):
        paths, labels = [], []
        for _, label, number, content in each({split: splits[split]}):
            put(root / "birds" / label / f"{number}.png", content)
            paths.append(f"/home/someone/filelists/birds/{label}/{number}.png")
            labels.append(names.index(label))
        lists = {"label_names": names, "image_names": paths, "image_labels": labels}
        (root / f"{stem}.json").write_text(json.dumps(lists))


def parquet(splits: Splits, root: Path) -> None:
    """As `datasets`: structs of bytes and path, and class names in the metadata."""
    (root / "data").mkdir(parents=True)
    names = [label for classes in splits.values() for label in classes]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for split in splits:
        rows = [
            {"image": {"bytes": content, "path": None}, "label": names.index(label)}
            for _, label, _, content in each({split: splits[split]})
        ]
        content = pa.Table.from_pylist(rows).replace_schema_metadata(metadata)
        pq.write_table(content, root / "data" / f"{split}-00000-of-00001.parquet", row_group_size=7)


def shards(splits: Splits, root: Path) -> None:
    """As `webdataset`: the members of an example follow each other, long names among them."""
    root.mkdir()
    for split in splits:
        for part in range(2):
            with tarfile.open(root / f"{split}-{part:06d}.tar", "w") as tar:
                for index, (_, label, _, content) in enumerate(each({split: splits[split]})):
                    if index % 2 == part:
                        key = f"{'long' * 30}/{index:06d}"
                        member(tar, f"{key}.cls", label.encode())
                        member(tar, f"{key}.png", content)


def member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
