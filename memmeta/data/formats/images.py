"""Readers for files that others wrote. Whatever is in a file, reading it runs no code of it.

All of them raise InputError, naming the file and what was expected, for a file that cannot be
read, is cut short, is damaged, or holds something else.
"""

import codecs
import contextlib
import csv
import io
import json
import math
import zlib
from collections.abc import Iterable, Sequence, Sized
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memmeta.data.formats import unpickling
from memmeta.data.formats.foreign import Budget, contrast, open_file, unexpected, unreadable
from memmeta.data.formats.unpickling import Array, as_text
from memmeta.data.sources import Images
from memmeta.errors import InputError, shortened

MAX_PIXELS = 100_000_000
"""Larger image files are refused: the largest photograph of ImageNet has a third of that."""

MAX_IMAGE_BYTES = 2**28
"""Larger image files are refused."""

MAX_TEXT_BYTES = 2**23
"""Larger lists of files and classes are refused; those of miniImageNet have 2 MB."""

HDF5_FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
}
"""Filters that HDF5 has built in. It loads others as plug-ins."""

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


def as_integers(
    path: Path, what: str, value: object, budget: Budget | None = None
) -> NDArray[np.int64]:
    """A value of a pickle, a list or an array, as integers, int64 [n].

    Args:
        path: of the file, for messages.
        what: the value, for messages.
        value: as it was in the file.
        budget: charged for the integers, since a file can refer to one list many times.
    """
    if isinstance(value, Array):
        value = value.value
    if isinstance(value, list | tuple) and all(type(item) is int for item in value):
        with contextlib.suppress(OverflowError):
            value = np.array(value, dtype=np.int64)
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "iu":
        raise InputError(f"{path}: {what}: expected a list of integers, got {_kind(value)}")
    if budget is not None:
        budget.take(8 * len(value))
    return value.astype(np.int64)


def as_texts(path: Path, what: str, value: object) -> list[str]:
    """A value of a pickle as a list of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str | bytes) for item in value):
        raise InputError(f"{path}: {what}: expected a list of names, got {_kind(value)}")
    # A pickle can refer to one long name many times.
    Budget.of(path).take(sum(map(len, value)))
    return [as_text(item) for item in value]


def as_indices(path: Path, what: str, value: object) -> dict[str, NDArray[np.int64]]:
    """A value of a pickle as a dict from text to lists of integers."""
    if not isinstance(value, dict) or not all(isinstance(key, str | bytes) for key in value):
        raise InputError(f"{path}: {what}: expected a dict of class names, got {_kind(value)}")
    budget = Budget.of(path)
    return {
        as_text(key): as_integers(path, f"{what}[{shortened(as_text(key))}]", indices, budget)
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
    """All of an image file."""
    return _content(path, MAX_IMAGE_BYTES)


def _content(path: Path, most: int) -> bytes:
    try:
        with open_file(path) as file:
            content = file.read(most + 1)
    except OSError as error:
        raise unreadable(path, error) from None
    if len(content) > most:
        raise InputError(f"{path}: larger than the {most} bytes that it may have")
    return content


def image_files(folder: Path) -> list[Path]:
    """The PNG files directly in a folder, sorted.

    Hidden files are skipped: macOS puts a `._x.png` beside `x.png`, which holds no image.
    """
    return sorted(path for path in folder.glob("*") if is_image_name(path.name))


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as a PNG image."""
    return name.lower().endswith(".png") and not name.startswith(".")


def read_image(path: Path, size: int, *, resize: bool = False) -> Images:
    """A PNG or JPEG file as uint8 [size, size, 3]; other sizes are refused unless `resize`."""
    return decode_image(str(path), read_file(path), size, resize=resize)


_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1}
"""Bytes of a pixel in Pillow's memory, by mode. Other modes take four."""


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
            mode = "L" if grey else "RGB"
            each = _PIXEL_BYTES.get(image.mode, 4)
            if image.mode != mode:
                each += _PIXEL_BYTES.get(mode, 4)
            Budget(where, len(content)).take(image.width * image.height * each)
            image.load()
            picture = image if image.mode == mode else image.convert(mode)
    except InputError:
        raise
    except Exception:  # Pillow's decoders raise many kinds
        found = contrast(content, "a PNG or JPEG image", b"\x89PNG")
        raise InputError(f"{where}: {found}") from None
    if picture.size != (size, size):
        # A low-pass filter and a resize in one.
        picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(picture).reshape(size, size, -1)


def read_hdf5(path: Path, name: str, shape: tuple[int, ...]) -> Images:
    """The images of a class, uint8 [n, *shape], from `datasets/<name>` of an HDF5 file.

    The file itself has to hold them, as a plain dataset. Soft and external links, virtual datasets,
    external storage and compression by plug-ins are refused.
    """
    wanted = f"expected uint8 [n, {', '.join(map(str, shape))}] at datasets/{name}"
    # Refuses pipes, on which h5py would wait.
    open_file(path).close()
    try:
        with h5py.File(path, "r") as file:
            data = _plain_dataset(path, file, name)
            if data is None:
                raise InputError(f"{path}: {wanted}, found none")
            if data.dtype != np.uint8 or data.shape[1:] != shape:
                raise InputError(f"{path}: {wanted}, got {data.dtype} {list(data.shape)}")
            budget = Budget(f"{path}: datasets/{name}", path.stat().st_size)
            budget.take(data.nbytes + math.prod(data.chunks or (0,)))
            if data.compression == "gzip" and not _chunks_fit(data):
                raise InputError(f"{path}: datasets/{name}: a chunk is not what it should be")
            images: Images = data[()]
            return images
    except InputError:
        raise
    except Exception:  # h5py raises many kinds, KeyError for what is not there among them
        magic = b"\x89HDF\r\n\x1a\n"
        raise unexpected(path, "an HDF5 file", f": {wanted}", magic) from None


def _plain_dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset | None:
    """The dataset datasets/<name>, None if missing. Follows hard links only."""
    place: Any = file
    for part in ("datasets", name):
        link = place.get(part, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{path}: datasets/{name} is reached by a link, which is not followed")
        place = place[part]
    if not isinstance(place, h5py.Dataset):
        raise InputError(f"{path}: datasets/{name} is not a dataset")
    settings = place.id.get_create_plist()
    plain = settings.get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)
    if not plain or settings.get_external_count():
        raise InputError(
            f"{path}: datasets/{name} is not stored as a plain dataset in this file: virtual and "
            "external ones are not followed"
        )
    filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
    if len(set(filters)) < len(filters) or not HDF5_FILTERS.issuperset(filters):
        raise InputError(f"{path}: datasets/{name} is compressed in a way that is not read")
    return place


def _chunks_fit(data: h5py.Dataset) -> bool:
    """Whether each chunk inflates to at most its size. HDF5 inflates all of it before it checks."""
    size = math.prod(data.chunks) + _CHECKSUM
    offsets: list[tuple[int, ...]] = []
    data.id.chunk_iter(lambda chunk: offsets.append(chunk.chunk_offset))
    for offset in offsets:
        mask, stored = data.id.read_direct_chunk(offset)
        # A mask skips filters for this chunk. Ordinary writers set none.
        if mask or len(zlib.decompressobj().decompress(stored, size + 1)) > size:
            return False
    return True


_CHECKSUM = 4
"""Bytes that the checksum filter adds to a chunk."""


def read_names(path: Path) -> list[str]:
    """A JSON list of texts, none of them twice."""
    expected = "a JSON list of class names"
    try:
        names = json.loads(_text(path, expected))
    except (ValueError, RecursionError):
        raise unexpected(path, expected) from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: expected a JSON list of class names")
    twice = _first_twice(names)
    if twice is not None:
        raise InputError(f"{path}: {shortened(twice)} is listed twice")
    return names


def read_table(path: Path) -> dict[str, list[str]]:
    """The file names of each label in a CSV file with the columns filename and label.

    Capitals in the header and spaces around cells are accepted. A file listed twice is an error.
    """
    expected = "a CSV file with the columns filename and label"
    files: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    try:
        rows = csv.reader(io.StringIO(_text(path, expected), newline=""))
        columns = [cell.strip().lower() for cell in next(rows, ())]
        if columns.count("filename") != 1 or columns.count("label") != 1:
            raise unexpected(path, expected)
        cells = columns.index("filename"), columns.index("label")
        for row in filter(None, rows):
            line = f"{path}: line {rows.line_num}"
            if len(row) <= max(cells) or not all(row[cell].strip() for cell in cells):
                raise InputError(f"{line}: expected a filename and a label")
            name, label = (row[cell].strip() for cell in cells)
            if "/" in name or "\\" in name or "\0" in name:
                raise InputError(f"{line}: a filename may not name a folder")
            if name in lines:
                raise InputError(
                    f"{line}: {shortened(name)} is listed twice, on line {lines[name]} before"
                )
            lines[name] = rows.line_num
            files.setdefault(label, []).append(name)
    except csv.Error:
        raise unexpected(path, expected) from None
    return files


def _text(path: Path, expected: str) -> str:
    """The content of a text file in UTF-8 or UTF-16, without its byte-order mark."""
    content = _content(path, MAX_TEXT_BYTES)
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if marked else "utf-8-sig")
    except ValueError:
        raise unexpected(path, expected) from None


def _first_twice(items: Sequence[str]) -> str | None:
    seen = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None


def check_names(path: Path, names: Iterable[str], expected: Iterable[str]) -> None:
    """Raise InputError unless both are the same set."""
    missing, extra = set(expected) - set(names), set(names) - set(expected)
    if missing or extra:
        parts = [
            f"{len(wrong)} {what} (such as {shortened(min(wrong))})"
            for what, wrong in (("classes missing", missing), ("unknown classes", extra))
            if wrong
        ]
        raise InputError(f"{path}: not the published classes of this split: {', '.join(parts)}")
