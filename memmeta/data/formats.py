"""Readers for files that others wrote. Whatever is in a file, reading it runs no code of it.

All of them raise InputError, naming the file and what was expected, for a file that cannot be
read, is cut short, is damaged, or holds something else.
"""

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memmeta.data import unpickling
from memmeta.data.sources import Images
from memmeta.data.unpickling import Array, as_text, printable
from memmeta.errors import InputError

MAX_PIXELS = 100_000_000
"""Larger image files are refused: the largest photograph of ImageNet has a third of that."""

MAX_CLASS_BYTES = 2**30
"""Larger classes in an HDF5 file are refused; compression lets a small file claim any size."""

IMAGE_FORMATS = ("PNG", "JPEG")
"""What Pillow may open. Some of its other decoders start external programs."""


def read_pickle(path: Path, *keys: str) -> dict[str, Any]:
    """A pickled dict that has `keys`, all of them text, whichever Python wrote it."""
    content = unpickling.load(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a dict, it holds a {type(content).__name__}")
    values = {
        as_text(key): value.value if isinstance(value, Array) else value
        for key, value in content.items()
        if isinstance(key, str | bytes)
    }
    for key in keys:
        if key not in values:
            raise InputError(f"{path}: expected a dict with {' and '.join(keys)}, {key} is missing")
    return values


def as_images(path: Path, what: str, value: object, shape: tuple[int, ...]) -> Images:
    """A value of a pickle as images, uint8 [n, *shape]."""
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.shape[1:] != shape:
        wanted = ", ".join(map(str, shape))
        raise InputError(
            f"{path}: {what}: expected a uint8 array [n, {wanted}], got {_kind(value)}"
        )
    return value


def as_integers(path: Path, what: str, value: object) -> NDArray[np.int64]:
    """A value of a pickle, a list or an array, as integers, int64 [n]."""
    if isinstance(value, Array):
        value = value.value
    if isinstance(value, list | tuple) and all(type(item) is int for item in value):
        with contextlib.suppress(OverflowError):
            value = np.array(value, dtype=np.int64)
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "iu":
        raise InputError(f"{path}: {what}: expected a list of integers, got {_kind(value)}")
    return value.astype(np.int64)


def as_texts(path: Path, what: str, value: object) -> list[str]:
    """A value of a pickle as a list of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str | bytes) for item in value):
        raise InputError(f"{path}: {what}: expected a list of names, got {_kind(value)}")
    return [as_text(item) for item in value]


def as_indices(path: Path, what: str, value: object) -> dict[str, NDArray[np.int64]]:
    """A value of a pickle as a dict from text to lists of integers."""
    if not isinstance(value, dict) or not all(isinstance(key, str | bytes) for key in value):
        raise InputError(f"{path}: {what}: expected a dict of class names, got {_kind(value)}")
    return {
        as_text(key): as_integers(path, f"{what}[{printable(as_text(key))}]", indices)
        for key, indices in value.items()
    }


def by_label(path: Path, images: Sized, value: object) -> dict[int, NDArray[np.int64]]:
    """Where the images of each label are.

    Args:
        path: of the file, for messages.
        images: n of them.
        value: the labels as they were in the file.
    """
    labels = as_integers(path, "labels", value)
    if len(labels) != len(images):
        raise InputError(f"{path}: {len(labels)} labels for {len(images)} images")
    order = np.argsort(labels, kind="stable")
    found, starts = np.unique(labels[order], return_index=True)
    return dict(zip(found.tolist(), np.split(order, starts[1:]), strict=False))


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return f"a {type(value).__name__.lstrip('_')}"


# Image files, HDF5, JSON, CSV --------------------------------------------------------------------


def read_file(path: Path) -> bytes:
    """All of a file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def read_image(path: Path, size: int, *, resize: bool = False) -> Images:
    """A PNG or JPEG file as uint8 [size, size, 3]; other sizes are refused unless `resize`."""
    return decode_image(str(path), read_file(path), size, resize=resize)


def decode_image(
    where: str, content: bytes, size: int, *, resize: bool = False, grey: bool = False
) -> Images:
    """The content of a PNG or JPEG file as uint8 [size, size, 3], or [size, size, 1] if `grey`.

    Args:
        where: the file, for messages.
        content: its bytes.
        size: of the result, in pixels.
        resize: whether to accept other sizes, and bring them to this one.
        grey: one channel in place of three.
    """
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            # The size is known before the image is decoded.
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{where}: {image.width}x{image.height} pixels are too many")
            if image.size != (size, size) and not resize:
                raise InputError(
                    f"{where}: expected {size}x{size} pixels, it has {image.width}x{image.height}"
                )
            picture = image.convert("L" if grey else "RGB")
    except InputError:
        raise
    except Exception:  # Pillow's decoders raise many kinds
        raise InputError(f"{where}: not a PNG or JPEG image, or damaged") from None
    if picture.size != (size, size):
        # A low-pass filter and a resize in one.
        picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(picture).reshape(size, size, -1)


def read_hdf5(path: Path, name: str, shape: tuple[int, ...]) -> Images:
    """The images of a class, uint8 [n, *shape], from `datasets/<name>` of an HDF5 file."""
    wanted = f"expected uint8 [n, {', '.join(map(str, shape))}] at datasets/{name}"
    try:
        with h5py.File(path, "r") as file:
            data = file["datasets"][name]
            if data.dtype != np.uint8 or data.shape[1:] != shape:
                raise InputError(f"{path}: {wanted}, got {data.dtype} {list(data.shape)}")
            if data.nbytes > MAX_CLASS_BYTES:
                raise InputError(f"{path}: datasets/{name} claims {data.nbytes} bytes")
            images: Images = data[()]
            return images
    except InputError:
        raise
    except Exception:  # h5py raises many kinds, KeyError for what is not there among them
        raise InputError(f"{path}: not an HDF5 file, or damaged: {wanted}") from None


def read_names(path: Path) -> list[str]:
    """A JSON list of texts."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: expected a JSON list of class names")
    return names


def read_table(path: Path) -> dict[str, list[str]]:
    """The file names of each label in a CSV file with the columns filename and label."""
    files: dict[str, list[str]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                name, label = row.get("filename"), row.get("label")
                if not name or not label:
                    raise InputError(f"{path}: line {number}: expected a filename and a label")
                if "/" in name or "\\" in name or "\0" in name:
                    raise InputError(f"{path}: line {number}: a filename may not name a folder")
                files.setdefault(label, []).append(name)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, csv.Error):
        raise InputError(f"{path}: not a CSV file") from None
    return files


def check_names(path: Path, names: Iterable[str], expected: Iterable[str]) -> None:
    """Raise InputError unless both are the same set."""
    missing, extra = set(expected) - set(names), set(names) - set(expected)
    if missing or extra:
        parts = [
            f"{len(wrong)} {what} (such as {printable(min(wrong))})"
            for what, wrong in (("classes missing", missing), ("unknown classes", extra))
            if wrong
        ]
        raise InputError(f"{path}: not the published classes of this split: {', '.join(parts)}")
