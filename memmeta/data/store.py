"""The cache of image data sets: one common format on disk, memory-mapped by training processes."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from memmeta.data.dataset import ImageDataset
from memmeta.data.episodes import Split
from memmeta.data.sources import SPLITS, Classes, Images, ImageSource, NoDataError, cache_name
from memmeta.errors import InputError
from memmeta.system import files

FORMAT_VERSION = 1

_COPIES = "copies.json"
"""Lists the images that equal the image before them. Older caches do not have this file."""


def prepare(source: ImageSource, data_root: Path, cache: Path | None = None) -> Path:
    """Create the cache of a data set if there is none, and return its folder.

    A complete cache is used even if the source files change or disappear; delete the folder to read
    them again. A cache that is damaged or has another format version is replaced. If several
    processes start together, one writes the cache and the others wait. A process killed during
    writing leaves nothing that could be mistaken for a cache. A complete cache may be read-only.

    Args:
        source: the data set.
        data_root: the folder with its files.
        cache: folder of all caches; None: `cache` in the data root.

    Raises:
        InputError: the data is missing or damaged, or the cache cannot be written.
    """
    folder = _cache_folder(source.name, data_root, cache)
    if _open(source.name, folder) is not None:
        return folder
    # Check for the files first, so that no folder is created if there are none.
    for split in SPLITS:
        source.read(data_root, split)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{source.name}.lock")):
            if _open(source.name, folder) is None:
                _create(source, data_root, folder)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return folder


def load(source: ImageSource, data_root: Path, cache: Path | None = None) -> ImageDataset:
    """Load a data set with images memory-mapped from the cache, which is created if necessary.

    Raises:
        InputError: see `prepare`.
    """
    folder = prepare(source, data_root, cache)
    dataset = _open(source.name, folder)
    if dataset is None:
        raise InputError(
            f"{folder}: the cache was damaged after it was checked; delete it and retry"
        )
    return _with_originals(dataset, folder)


def try_out(source: ImageSource, data_root: Path, cache: Path | None = None) -> None:
    """Check that `load` would work: read the first class of each split, without writing a cache.

    Raises:
        NoDataError: no form of the data set was found.
        InputError: see `prepare`.
    """
    folder = _cache_folder(source.name, data_root, cache)
    if _open(source.name, folder) is not None:
        return
    for split in SPLITS:
        next(source.read(data_root, split), None)
    try:
        existing = next(path for path in folder.parents if path.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from None


def state(
    source: ImageSource, data_root: Path, cache: Path | None = None
) -> Literal["prepared", "found", "missing"]:
    """Whether a data set can be loaded: from its cache, from its files, or not at all.

    Raises:
        InputError: the files cannot be read.
    """
    if _open(source.name, _cache_folder(source.name, data_root, cache)) is not None:
        return "prepared"
    try:
        for split in SPLITS:
            source.read(data_root, split)
    except NoDataError:
        return "missing"
    return "found"


def _cache_folder(name: str, data_root: Path, cache: Path | None = None) -> Path:
    """The folder of the cache of a data set; it need not exist."""
    return (cache or data_root / "cache") / cache_name(name)


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"{folder}: the cache cannot be written ({error.strerror or error}); "
        "choose another folder with --cache or MEMMETA_CACHE"
    )


def _create(source: ImageSource, data_root: Path, folder: Path) -> None:
    partial = folder.with_name(f".{source.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        copies = _write(source, data_root, partial)
        _report(source.name, copies)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _with_originals(dataset: ImageDataset, folder: Path) -> ImageDataset:
    """Add `Split.originals` to a data set.

    Older caches have no list of equal images. It is then computed, and stored in the cache if the
    cache can be written.
    """
    path = folder / _COPIES
    copies = _read_copies(path, dataset)
    if copies is None:
        copies = {split: _find_copies(getattr(dataset, split)) for split in SPLITS}
        _report(dataset.name, copies)
        # With a read-only cache each process computes the list.
        with contextlib.suppress(OSError), files.atomic_write(path) as file:
            file.write(json.dumps({"digest": dataset.digest, **copies}).encode())
    splits = {
        split: dataclasses.replace(
            getattr(dataset, split), originals=_originals(getattr(dataset, split), copies[split])
        )
        for split in SPLITS
    }
    return dataclasses.replace(dataset, **splits)


def _read_copies(path: Path, dataset: ImageDataset) -> dict[str, list[int]] | None:
    """The list of copies in the cache; None if missing, damaged or from other data."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        copies = {split: list(map(int, content[split])) for split in SPLITS}
        valid = content["digest"] == dataset.digest and all(
            0 < row < len(getattr(dataset, split).images)
            for split in SPLITS
            for row in copies[split]
        )
    # Damaged JSON can raise many types, as in `_open`.
    except Exception:
        return None
    return copies if valid else None


def _find_copies(split: Split) -> list[int]:
    """The indices of images that equal the image before them in their class."""
    copies = []
    for begin, end in itertools.pairwise(split.offsets.tolist()):
        copies += _copies_of_a_class(np.asarray(split.images[begin:end]), begin)
    return copies


def _copies_of_a_class(images: Images, begin: int) -> list[int]:
    """Indices of copies in one class, whose first image has the index `begin`.

    Equal images are neighbours, see `_canonical`.
    """
    equal = (images[1:] == images[:-1]).all(axis=(1, 2, 3))
    return [begin + 1 + row for row in np.flatnonzero(equal).tolist()]


def _originals(split: Split, copies: list[int]) -> NDArray[np.int64] | None:
    """Compute `Split.originals` from the copies of a split."""
    if not copies:
        return None
    originals = np.arange(len(split.images))
    for row in sorted(copies):
        originals[row] = originals[row - 1]
    return originals


def _report(name: str, copies: dict[str, list[int]]) -> None:
    """Print how many images are copies, if there are any."""
    counts = [f"{len(rows)} of {split}" for split, rows in copies.items() if rows]
    if counts:
        print(
            f"{name}: images equal to another image of their class: {', '.join(counts)}; tasks "
            "never have equal images in support and query",
            file=sys.stderr,
        )


def _open(name: str, folder: Path) -> ImageDataset | None:
    """The data set in `folder`; None if it is not a valid cache of this version."""
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
    # NumPy and JSON raise many types of errors for damaged content.
    except Exception:
        return None


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


class _Moments:
    """Mean and standard deviation of each channel, from exact integer sums."""

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


def _write(source: ImageSource, data_root: Path, folder: Path) -> dict[str, list[int]]:
    """Write the three splits of `source` to `folder`, with one class in memory at a time.

    Returns:
        The copies in each split, see `_find_copies`.
    """
    copies: dict[str, list[int]] = {}
    digest = hashlib.sha256()
    moments = _Moments() if source.mean is None else None
    meta: dict[str, Any] = {"version": FORMAT_VERSION, "splits": {}}
    for split in SPLITS:
        digest.update(f"{split}\0".encode())
        names, offsets, shape, copies[split] = _write_split(
            source.read(data_root, split),
            folder / f"{split}.npy",
            digest,
            moments if split == "train" else None,
        )
        meta["splits"][split] = {"class_names": names, "offsets": offsets}
        if meta.setdefault("image_shape", shape) != shape:
            raise InputError(
                f"{split}: images have shape {shape}, those of train {meta['image_shape']}"
            )
    meta["mean"] = source.mean if moments is None else moments.mean
    meta["std"] = source.std if moments is None else moments.std
    meta["digest"] = digest.hexdigest()
    content = {"digest": meta["digest"], **copies}
    (folder / _COPIES).write_text(json.dumps(content), encoding="utf-8")
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    return copies


def _write_split(
    classes: Classes, path: Path, digest: _Hash, moments: _Moments | None
) -> tuple[list[str], list[int], list[int], list[int]]:
    """Write one .npy file.

    Uses plain writes instead of a memory map: on a full disk a write raises an error, while a
    memory map kills the process.

    Returns:
        Class names, offsets, the shape of an image, and the copies.
    """
    names: list[str] = []
    offsets = [0]
    shape: list[int] = []
    copies: list[int] = []
    with path.open("wb") as out:
        for name, images in classes:
            assert not names or names[-1] < name, "sources yield their classes in order"
            if not names:
                shape = list(images.shape[1:])
                _write_header(out, (0, *shape))
            if len(images) == 0 or list(images.shape[1:]) != shape:
                raise InputError(
                    f"class {name}: expected images of shape {shape}, got {list(images.shape)}"
                )
            images = _canonical(images)
            out.write(images.data)
            digest.update(f"{name}\0{images.shape}\0".encode())
            digest.update(images.data)
            if moments is not None:
                moments.add(images)
            names.append(name)
            copies += _copies_of_a_class(images, offsets[-1])
            offsets.append(offsets[-1] + len(images))
        # NumPy pads the header, so the number of images can be written in place.
        start = out.tell() - offsets[-1] * int(np.prod(shape))
        out.seek(0)
        _write_header(out, (offsets[-1], *shape))
        assert out.tell() == start
    return names, offsets, shape, copies


def _write_header(out: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)


def _canonical(images: Images) -> Images:
    """The images of a class, sorted by content: the order does not depend on the source format."""
    order = sorted(range(len(images)), key=lambda i: images[i].tobytes())
    return np.ascontiguousarray(images[order])
