"""The cache of image data sets: one common format on disk, memory-mapped by training processes."""

import contextlib
import dataclasses
import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from memmeta.data import cache_files
from memmeta.data.dataset import ImageDataset
from memmeta.data.episodes import Split
from memmeta.data.sources import SPLITS, ImageSource, NoDataError, cache_name
from memmeta.errors import InputError
from memmeta.system import files


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
    folder = cache_folder(source.name, data_root, cache)
    if open_cache(source.name, folder) is not None:
        return folder
    # Check for the files first, so that no folder is created if there are none.
    for split in SPLITS:
        source.read(data_root, split)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{source.name}.lock")):
            if open_cache(source.name, folder) is None:
                _create(source, data_root, folder)
    except OSError as error:
        raise unwritable(folder, error) from None
    return folder


def load(source: ImageSource, data_root: Path, cache: Path | None = None) -> ImageDataset:
    """Load a data set with images memory-mapped from the cache, which is created if necessary.

    Raises:
        InputError: see `prepare`.
    """
    folder = prepare(source, data_root, cache)
    dataset = open_cache(source.name, folder)
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
    folder = cache_folder(source.name, data_root, cache)
    if open_cache(source.name, folder) is not None:
        return
    for split in SPLITS:
        next(source.read(data_root, split), None)
    try:
        existing = next(path for path in folder.parents if path.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise unwritable(folder, error) from None


def state(
    source: ImageSource, data_root: Path, cache: Path | None = None
) -> Literal["prepared", "found", "missing"]:
    """Whether a data set can be loaded: from its cache, from its files, or not at all.

    Raises:
        InputError: the files cannot be read.
    """
    if open_cache(source.name, cache_folder(source.name, data_root, cache)) is not None:
        return "prepared"
    try:
        for split in SPLITS:
            source.read(data_root, split)
    except NoDataError:
        return "missing"
    return "found"


def cache_folder(name: str, data_root: Path, cache: Path | None = None) -> Path:
    """The folder of the cache of a data set; it need not exist."""
    return (cache or data_root / "cache") / cache_name(name)


def unwritable(folder: Path, error: OSError) -> InputError:
    """The error to raise for a cache that cannot be written."""
    return InputError(
        f"{folder}: the cache cannot be written ({error.strerror or error}); "
        "choose another folder with --cache or MEMMETA_CACHE"
    )


def _create(source: ImageSource, data_root: Path, folder: Path) -> None:
    partial = folder.with_name(f".{source.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        copies = cache_files.write(
            partial,
            lambda split: _sorted_classes(source, data_root, split),
            mean=source.mean,
            std=source.std,
        )
        report_copies(source.name, copies)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sorted_classes(
    source: ImageSource, data_root: Path, split: str
) -> Iterator[cache_files.SortedClass]:
    for name, images in source.read(data_root, split):
        yield cache_files.SortedClass(name, len(images), iter([cache_files.canonical(images)]))


def _with_originals(dataset: ImageDataset, folder: Path) -> ImageDataset:
    """Add `Split.originals` to a data set.

    Older caches have no list of equal images. It is then computed, and stored in the cache if the
    cache can be written.
    """
    path = folder / cache_files.COPIES
    copies = _read_copies(path, dataset)
    if copies is None:
        copies = {split: _find_copies(getattr(dataset, split)) for split in SPLITS}
        report_copies(dataset.name, copies)
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
    """The indices of images that equal the image before them in their class.

    Equal images are neighbours, see `cache_files.canonical`.
    """
    copies = []
    for begin, end in itertools.pairwise(split.offsets.tolist()):
        equal = cache_files.equal_to_previous(np.asarray(split.images[begin:end]))
        copies += [begin + 1 + row for row in equal]
    return copies


def _originals(split: Split, copies: list[int]) -> NDArray[np.int64] | None:
    """Compute `Split.originals` from the copies of a split."""
    if not copies:
        return None
    originals = np.arange(len(split.images))
    for row in sorted(copies):
        originals[row] = originals[row - 1]
    return originals


def report_copies(name: str, copies: dict[str, list[int]]) -> None:
    """Print how many images are copies, if there are any."""
    counts = [f"{len(rows)} of {split}" for split, rows in copies.items() if rows]
    if counts:
        print(
            f"{name}: images equal to another image of their class: {', '.join(counts)}; tasks "
            "never have equal images in support and query",
            file=sys.stderr,
        )


def open_cache(name: str, folder: Path) -> ImageDataset | None:
    """The data set in `folder`; None if it is not a valid cache of this version."""
    try:
        meta = json.loads((folder / cache_files.META).read_text(encoding="utf-8"))
        if meta["version"] != cache_files.FORMAT_VERSION:
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
