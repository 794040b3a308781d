"""The cache: each data set once on disk, in one form, mapped into memory by all who train on it."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from filelock import FileLock

from memmeta.data.dataset import ImageDataset
from memmeta.data.episodes import Split
from memmeta.data.sources import SPLITS, Classes, Images, Source
from memmeta.errors import InputError

FORMAT_VERSION = 1


def prepare(name: str, source: Source, data_root: Path) -> Path:
    """The cache folder of a data set, made if it is not there.

    A cache once made is used even if the source files change or go: delete the folder to read them
    again. A damaged cache, or one of another format version, is made anew. Processes that start
    together wait for the one that writes; one killed half-way leaves nothing that is taken for a
    cache.

    Raises:
        InputError: the data is missing or damaged, or the cache cannot be written.
    """
    folder = data_root / "cache" / name
    if _open(name, folder) is not None:
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{name}.lock")):
            if _open(name, folder) is None:
                partial = folder.with_name(f".{name}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                try:
                    partial.mkdir()
                    _write(source, data_root, partial)
                    shutil.rmtree(folder, ignore_errors=True)
                    partial.rename(folder)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"{folder}: the cache cannot be written ({error.strerror or error})"
        ) from None
    return folder


def load(name: str, source: Source, data_root: Path) -> ImageDataset:
    """The data set, its images mapped from the cache, which is made first if it is not there.

    Raises:
        InputError: as `prepare`.
    """
    folder = prepare(name, source, data_root)
    dataset = _open(name, folder)
    if dataset is None:
        raise InputError(f"{folder}: damaged while it was opened; delete it and try again")
    return dataset


def _open(name: str, folder: Path) -> ImageDataset | None:
    """The data set in `folder`; None if that is no sound cache of this version."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta["version"] != FORMAT_VERSION:
            return None
        splits = {}
        for split in SPLITS:
            entry = meta["splits"][split]
            images = np.load(folder / f"{split}.npy", mmap_mode="r", allow_pickle=False)
            offsets = np.array(entry["offsets"], dtype=np.int64)
            names = tuple(entry["class_names"])
            shape = (offsets[-1], *meta["image_shape"])
            if images.dtype != np.uint8 or images.shape != shape or len(offsets) != len(names) + 1:
                return None
            if offsets[0] != 0 or (np.diff(offsets) <= 0).any():
                return None
            splits[split] = Split(images, offsets, names)
        mean, std = tuple(meta["mean"]), tuple(meta["std"])
        if not len(mean) == len(std) == meta["image_shape"][-1]:
            return None
        return ImageDataset(name=name, **splits, mean=mean, std=std, digest=meta["digest"])
    # What NumPy and JSON raise for bytes that mean nothing depends on the bytes.
    except Exception:
        return None


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


class _Moments:
    """Mean and standard deviation of each channel, in exact integer sums."""

    def __init__(self) -> None:
        self.pixels = 0
        self.sum: Any = 0
        self.squares: Any = 0

    def add(self, images: Images) -> None:
        values = images.reshape(-1, images.shape[-1]).astype(np.int64)
        self.pixels += len(values)
        self.sum += values.sum(axis=0)
        self.squares += np.square(values).sum(axis=0)

    @property
    def mean(self) -> list[float]:
        return [float(total / self.pixels) for total in self.sum]

    @property
    def std(self) -> list[float]:
        mean = self.sum / self.pixels
        return [float(value) for value in np.sqrt(self.squares / self.pixels - mean**2)]


def _write(source: Source, data_root: Path, folder: Path) -> None:
    """Stream the three splits of `source` into `folder`, one class in memory at a time."""
    digest = hashlib.sha256()
    moments = _Moments() if source.mean is None else None
    meta: dict[str, Any] = {"version": FORMAT_VERSION, "splits": {}}
    for split in SPLITS:
        digest.update(f"{split}\0".encode())
        names, offsets, shape = _write_split(
            source.read(data_root, split),
            folder / f"{split}.npy",
            digest,
            moments if split == "train" else None,
        )
        meta["splits"][split] = {"class_names": names, "offsets": offsets}
        if meta.setdefault("image_shape", shape) != shape:
            raise InputError(f"{split}: images of {shape}, train has {meta['image_shape']}")
    meta["mean"] = source.mean if moments is None else moments.mean
    meta["std"] = source.std if moments is None else moments.std
    meta["digest"] = digest.hexdigest()
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _write_split(
    classes: Classes, path: Path, digest: _Hash, moments: _Moments | None
) -> tuple[list[str], list[int], list[int]]:
    """Write one .npy file; returns class names, offsets and the shape of an image.

    Plain writes rather than a memory map: on a full disk they raise, where a map kills the process.
    """
    names: list[str] = []
    offsets = [0]
    shape: list[int] = []
    with path.open("wb") as out:
        for name, images in classes:
            assert not names or names[-1] < name, "sources give their classes in order"
            if not names:
                shape = list(images.shape[1:])
                _write_header(out, (0, *shape))
            if len(images) == 0 or list(images.shape[1:]) != shape:
                raise InputError(f"class {name}: images {images.shape}, expected some of {shape}")
            images = _canonical(images)
            out.write(images.data)
            digest.update(f"{name}\0{images.shape}\0".encode())
            digest.update(images.data)
            if moments is not None:
                moments.add(images)
            names.append(name)
            offsets.append(offsets[-1] + len(images))
        # NumPy pads the header so that the first dimension can grow in place.
        start = out.tell() - offsets[-1] * int(np.prod(shape))
        out.seek(0)
        _write_header(out, (offsets[-1], *shape))
        assert out.tell() == start
    return names, offsets, shape


def _write_header(out: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)


def _canonical(images: Images) -> Images:
    """The images of a class in the one order that does not depend on where they came from."""
    order = sorted(range(len(images)), key=lambda i: images[i].tobytes())
    return np.ascontiguousarray(images[order])
