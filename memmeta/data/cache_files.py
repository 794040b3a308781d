"""Write the files of a cache: the images of each split as .npy, and their description."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from PIL import Image

from memmeta.data.sources import SPLITS, Images
from memmeta.errors import InputError

FORMAT_VERSION = 1

META = "meta.json"
"""Class names, offsets, normalisation and digest."""

COPIES = "copies.json"
"""Lists the images that equal the image before them. Older caches do not have this file."""


class SortedClass(NamedTuple):
    """A class whose images are sorted by content, so that their order depends on nothing else."""

    name: str
    size: int
    """Number of images."""
    parts: Iterator[Images]
    """The images, as many at a time as fit into memory."""


def write(
    folder: Path,
    read: Callable[[str], Iterator[SortedClass]],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, list[int]]:
    """Write the three splits of a data set to `folder`, with one part in memory at a time.

    Args:
        folder: an empty folder.
        read: yields the classes of a split in the order of their names.
        mean: per channel, on the 0-255 scale; None: that of the training split.
        std: per channel, on the 0-255 scale; None: that of the training split.
        more: further entries of meta.json.

    Returns:
        The indices, in each split, of images that equal the image before them in their class.

    Raises:
        InputError: images have different shapes, or all training images one colour.
        OSError: the disk is full.
    """
    copies: dict[str, list[int]] = {}
    digest = hashlib.sha256()
    moments = _Moments() if mean is None else None
    meta: dict[str, Any] = {"version": FORMAT_VERSION, "splits": {}}
    for split in SPLITS:
        digest.update(f"{split}\0".encode())
        names, offsets, shape, copies[split] = _write_split(
            read(split),
            folder / f"{split}.npy",
            digest,
            moments if split == "train" else None,
        )
        meta["splits"][split] = {"class_names": names, "offsets": offsets}
        if meta.setdefault("image_shape", shape) != shape:
            raise InputError(
                f"{split}: images have shape {shape}, those of train {meta['image_shape']}"
            )
    if moments is not None and 0 in moments.std:
        raise InputError("train: all images have one colour, which cannot be normalised")
    meta["mean"] = mean if moments is None else moments.mean
    meta["std"] = std if moments is None else moments.std
    meta["digest"] = digest.hexdigest()
    meta |= more or {}
    content = {"digest": meta["digest"], **copies}
    (folder / COPIES).write_text(json.dumps(content), encoding="utf-8")
    (folder / META).write_text(json.dumps(meta), encoding="utf-8")
    return copies


def canonical(images: Images) -> Images:
    """The images of a class, sorted by content: the order does not depend on the source format."""
    order = sorted(range(len(images)), key=lambda i: images[i].tobytes())
    return np.ascontiguousarray(images[order])


def equal_to_previous(images: Images) -> list[int]:
    """The rows i for which image i + 1 equals image i."""
    equal = (images[1:] == images[:-1]).all(axis=(1, 2, 3))
    rows: list[int] = np.flatnonzero(equal).tolist()
    return rows


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


class _Moments:
    """Mean and standard deviation of each channel, from exact integer sums."""

    def __init__(self) -> None:
        self.pixels = 0
        self.sum: Any = 0
        self.squares: Any = 0

    def add(self, images: Images) -> None:
        *_, width, channels = images.shape
        # One tall picture: Pillow counts grey levels ten times as fast as NumPy sums pixels.
        rows = images.reshape(-1, width, channels)
        tall = Image.fromarray(rows[..., 0] if channels == 1 else rows)
        counts = np.reshape(tall.histogram(), (channels, 256))
        levels = np.arange(256)
        self.pixels += rows.shape[0] * width
        self.sum += counts @ levels
        self.squares += counts @ levels**2

    @property
    def mean(self) -> list[float]:
        return [float(total / self.pixels) for total in self.sum]

    @property
    def std(self) -> list[float]:
        mean = self.sum / self.pixels
        return [float(value) for value in np.sqrt(self.squares / self.pixels - mean**2)]


def _write_split(
    classes: Iterator[SortedClass], path: Path, digest: _Hash, moments: _Moments | None
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
        for name, size, parts in classes:
            assert not names or names[-1] < name, "sources yield their classes in order"
            begin, last = offsets[-1], None
            for images in parts:
                if not shape:
                    shape = list(images.shape[1:])
                    _write_header(out, (0, *shape))
                if len(images) == 0 or list(images.shape[1:]) != shape:
                    raise InputError(
                        f"class {name}: expected images of shape {shape}, got {list(images.shape)}"
                    )
                if last is None:
                    digest.update(f"{name}\0{(size, *shape)}\0".encode())
                elif np.array_equal(last, images[0]):
                    copies.append(begin)
                out.write(images.data)
                digest.update(images.data)
                if moments is not None:
                    moments.add(images)
                copies += [begin + 1 + row for row in equal_to_previous(images)]
                begin, last = begin + len(images), images[-1]
            assert begin - offsets[-1] == size
            names.append(name)
            offsets.append(begin)
        # NumPy pads the header, so the number of images can be written in place.
        start = out.tell() - offsets[-1] * int(np.prod(shape))
        out.seek(0)
        _write_header(out, (offsets[-1], *shape))
        assert out.tell() == start
    return names, offsets, shape, copies


def _write_header(out: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)
