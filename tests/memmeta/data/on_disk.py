"""Small data sets, and writers for the published formats."""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
from PIL import Image, ImageDraw

from memmeta.data.sources import SPLITS, split_classes

ByClass = dict[str, np.ndarray]

PEAK = '''
import re
from pathlib import Path

def peak():
    """Peak resident set of this process in bytes. getrusage would include its parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
'''
"""Source code for programs that measure their own memory."""


def some_images(stem: str, size: int, least: int = 2, most: int = 4) -> dict[str, ByClass]:
    """Smooth colour patterns: a few for each published class of each split."""
    classes = {split: split_classes(stem, split) for split in SPLITS}
    return patterns(classes, size, least, most)


def patterns(classes: dict[str, list[str]], size: int, least: int, most: int) -> dict[str, ByClass]:
    """Smooth colour patterns: `least` to `most` for each class of each split."""
    rng = np.random.default_rng(size)
    splits: dict[str, ByClass] = {}
    for split, names in classes.items():
        splits[split] = {}
        for name in names:
            coarse = rng.integers(0, 256, (rng.integers(least, most + 1), 4, 4, 3), dtype=np.uint8)
            smooth = [Image.fromarray(image).resize((size, size)) for image in coarse]
            splits[split][name] = np.stack([np.asarray(image) for image in smooth])
    return splits


def stacked(classes: ByClass) -> tuple[np.ndarray, list[str]]:
    """All images of a split, shuffled, and the class of each."""
    images = np.concatenate(list(classes.values()))
    names = [name for name, some in classes.items() for _ in some]
    order = np.random.default_rng(1).permutation(len(images))
    return images[order], [names[i] for i in order]


def dump(content: object, path: Path, protocol: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=protocol))


def dump_python2(content: object) -> bytes:
    """Pickle uint8 arrays, lists, dicts, texts and integers as Python 2 and its NumPy do."""

    def text(value: bytes) -> bytes:
        if len(value) < 256:
            return b"U" + bytes([len(value)]) + value
        return b"T" + struct.pack("<i", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    def value(item: object) -> bytes:
        if isinstance(item, dict):
            pairs = b"".join(text(key.encode()) + value(part) for key, part in item.items())
            return b"}(" + pairs + b"u"
        if isinstance(item, list):
            return b"](" + b"".join(map(value, item)) + b"e"
        if isinstance(item, int):
            return number(item)
        if isinstance(item, str):
            return text(item.encode())
        assert isinstance(item, np.ndarray)
        dtype = (
            b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
            b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        )
        shape = b"(" + b"".join(map(number, item.shape)) + b"t"
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
            b"(K\x01" + shape + dtype + b"\x89" + text(item.tobytes()) + b"tb"
        )

    return b"\x80\x02" + value(content) + b"."


def write_images(classes: ByClass, root: Path) -> None:
    """Class folders of PNG files."""
    for name, images in classes.items():
        (root / name).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / name / f"{name}_{i:03d}.png")


def cifar_folders(splits: dict[str, ByClass], root: Path) -> None:
    for classes in splits.values():
        write_images(classes, root / "cifar100" / "data")


def split_folders(splits: dict[str, ByClass], root: Path) -> None:
    for split, classes in splits.items():
        write_images(classes, root / split)


def cifar_pickles(splits: dict[str, ByClass], root: Path, stem: str, numbering: str) -> None:
    every = sorted(name for classes in splits.values() for name in classes)
    for split, classes in splits.items():
        images, names = stacked(classes)
        known = every if numbering == "cifar100" else list(classes)
        labels = [known.index(name) for name in names]
        dump({"data": images, "labels": labels}, root / f"{stem}_{split}.pickle")


def cifar_torchvision(splits: dict[str, ByClass], root: Path) -> None:
    """Write the files of the authors' archive: Python 2 keys, images as rows of three planes."""
    every = {name: images for classes in splits.values() for name, images in classes.items()}
    known = sorted(every)
    folder = root / "cifar-100-python"
    for part, some in (("train", slice(1, None)), ("test", slice(0, 1))):
        images, names = stacked({name: images[some] for name, images in every.items()})
        rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
        folder.mkdir(parents=True, exist_ok=True)
        content = {"data": rows, "fine_labels": [known.index(name) for name in names]}
        (folder / part).write_bytes(dump_python2(content))
    dump({b"fine_label_names": [name.encode() for name in known]}, folder / "meta", 2)


def mini_cache(splits: dict[str, ByClass], root: Path, python2: bool, val: str = "val") -> None:
    for split, classes in splits.items():
        images, names = stacked(classes)
        indices = {name: [i for i, n in enumerate(names) if n == name] for name in classes}
        path = root / f"mini-imagenet-cache-{val if split == 'val' else split}.pkl"
        root.mkdir(parents=True, exist_ok=True)
        if python2:
            path.write_bytes(dump_python2({"image_data": images, "class_dict": indices}))
        else:
            arrays = {name: np.array(some) for name, some in indices.items()}
            dump({"image_data": images, "class_dict": arrays}, path, 5)


def mini_category_split(splits: dict[str, ByClass], root: Path, stated: bool) -> None:
    """Labels continue from split to split, as published, or follow catname2label if `stated`."""
    first = 0
    for split, classes in splits.items():
        images, names = stacked(classes)
        order = sorted(classes, reverse=stated)
        labels = {name: first + i for i, name in enumerate(order)}
        content = {"data": images, "labels": [labels[name] for name in names]}
        if stated:
            content["catname2label"] = labels
        stem = "train_phase_train" if split == "train" else split
        dump(content, root / f"miniImageNet_category_split_{stem}.pickle", 2)
        first += len(classes)


def mini_hdf5(splits: dict[str, ByClass], root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for split, classes in splits.items():
        with h5py.File(root / f"{split}_data.hdf5", "w") as file:
            group = file.create_group("datasets")
            for name, images in classes.items():
                group.create_dataset(name, data=images)
        (root / f"{split}_labels.json").write_text(json.dumps(sorted(classes)))


def mini_image_files(
    splits: dict[str, ByClass],
    root: Path,
    folder: str = "images",
    header: str = "filename,label",
) -> None:
    """Write the images and a table for each split.

    Args:
        splits: the images.
        root: where to write.
        folder: the folder of an image, which may contain {name}, its class.
        header: the header of the tables.
    """
    root.mkdir(parents=True, exist_ok=True)
    for split, classes in splits.items():
        lines = [header]
        for name, images in classes.items():
            place = root / folder.format(name=name)
            place.mkdir(parents=True, exist_ok=True)
            for i, image in enumerate(images):
                Image.fromarray(image).save(place / f"{name}_{i}.JPEG", "PNG")
                cells = {"filename": f"{name}_{i}.JPEG", "label": name}
                cells |= {"image_name": cells["filename"], "class_name": name}
                lines.append(",".join(cells[column] for column in header.split(",")))
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")


def mini_class_folders(splits: dict[str, ByClass], root: Path) -> None:
    for classes in splits.values():
        write_images(classes, root)


def png(image: np.ndarray) -> np.ndarray:
    """The bytes of a PNG file, uint8 [n, 1], as OpenCV returns them."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return np.frombuffer(out.getvalue(), np.uint8)[:, None].copy()


def tiered_labels(names: list[str], stated: dict[str, str] | None, key: str) -> dict[str, object]:
    """The content of a labels file.

    Args:
        names: the class of each image.
        stated: the name of each class in the file; None: labels follow the published order.
        key: the key of the labels.
    """
    order = list(dict.fromkeys(names)) if stated is None else sorted(set(names), reverse=True)
    content: dict[str, object] = {key: [order.index(name) for name in names]}
    if stated is not None:
        content["label_specific_str"] = [stated[name] for name in order]
    return content


def tiered_png(
    splits: dict[str, ByClass], root: Path, words: dict[str, str], protocol: int | None
) -> None:
    """Write the published form, with shuffled images; as Python 2 if `protocol` is None."""
    root.mkdir(parents=True, exist_ok=True)
    for split, classes in splits.items():
        images, names = stacked(classes)
        labels = tiered_labels(names, words, "label_specific")
        for end, content in (("images_png", [png(image) for image in images]), ("labels", labels)):
            path = root / f"{split}_{end}.pkl"
            if protocol is None:
                path.write_bytes(dump_python2(content))
            else:
                dump(content, path, protocol)


def tiered_npz(splits: dict[str, ByClass], root: Path) -> None:
    """Write the derived form: blue first, classes in the published order, without names."""
    root.mkdir(parents=True, exist_ok=True)
    for split, classes in splits.items():
        names = [name for name, some in classes.items() for _ in some]
        images = np.concatenate(list(classes.values()))
        np.savez(root / f"{split}_images.npz", images=images[..., ::-1])
        dump(tiered_labels(names, None, "labels"), root / f"{split}_labels.pkl")


def some_drawings() -> dict[str, bytes]:
    """PNG files like those of Omniglot, black lines on white: one or two per character."""
    rng = np.random.default_rng(0)
    drawings = {}
    for split in SPLITS:
        for name in split_classes("omniglot_vinyals", split):
            for i in range(rng.integers(1, 3)):
                image = Image.new("1", (105, 105), 1)
                points = [tuple(point) for point in rng.integers(10, 95, (4, 2)).tolist()]
                ImageDraw.Draw(image).line(points, fill=0, width=3)
                out = io.BytesIO()
                image.save(out, "PNG")
                drawings[f"{name}/{i:04d}_{i:02d}.png"] = out.getvalue()
    return drawings


def omniglot_folders(drawings: dict[str, bytes], root: Path) -> None:
    for name, content in drawings.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def omniglot_zips(drawings: dict[str, bytes], root: Path, compression: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for part in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(root / f"{part}.zip", "w", compression) as archive:
            archive.mkdir(part)
            for name, content in reversed(drawings.items()):
                if name.startswith(part):
                    archive.writestr(name, content)
            archive.writestr(f"__MACOSX/{part}/._x.png", b"")
