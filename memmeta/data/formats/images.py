"""Readers for untrusted files. Reading a file never runs code from it.

All readers raise InputError for a file that is unreadable, truncated, damaged or of another format.
The message names the file and what was expected.
"""

import codecs
import contextlib
import csv
import io
import json
import math
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memmeta.data.formats import unpickling
from memmeta.data.formats.foreign import Budget, contrast, open_file, unexpected
from memmeta.data.formats.unpickling import Array, as_text
from memmeta.data.sources import Classes, Images
from memmeta.errors import InputError, cannot_read, shortened

MAX_PIXELS = 100_000_000
"""Images with more pixels are rejected. The largest photograph of ImageNet has a third of that."""

MAX_IMAGE_BYTES = 2**28
"""Larger image files are rejected."""

MAX_TEXT_BYTES = 2**23
"""Larger lists of files and classes are rejected. Those of miniImageNet have 2 MB."""

HDF5_FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
}
"""The built-in filters of HDF5. It loads others as plug-ins."""

IMAGE_FORMATS = ("PNG", "JPEG")
"""The formats that Pillow may open. Some of its other decoders start external programs."""

PHOTO_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""The formats of `read_photo`. Pillow decodes them itself."""


def read_pickle(path: Path, *keys: str) -> dict[str, Any]:
    """Read a pickled dict with at least the text keys `keys`, written by Python 2 or 3."""
    content = unpickling.load(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a dict, got a {type(content).__name__}")
    values = {
        as_text(key): value.value if isinstance(value, Array) else value
        for key, value in content.items()
        if isinstance(key, str | bytes)
    }
    for key in keys:
        if key not in values:
            raise InputError(f"{path}: expected a dict with {' and '.join(keys)}, {key} is missing")
    return values


def as_images(path: Path, key: str, value: object, shape: tuple[int, ...]) -> Images:
    """Check that a value of a pickle is an array of images, uint8 [n, *shape], and return it."""
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.shape[1:] != shape:
        wanted = ", ".join(map(str, shape))
        raise InputError(f"{path}: {key}: expected a uint8 array [n, {wanted}], got {_kind(value)}")
    return value


def as_integers(
    path: Path, key: str, value: object, budget: Budget | None = None
) -> NDArray[np.int64]:
    """Convert a value of a pickle, a list or an array of integers, to int64 [n].

    Args:
        path: the file, for messages.
        key: the name of the value, for messages.
        value: the value in the file.
        budget: charged for the result, because a file can refer to one list many times.
    """
    if isinstance(value, Array):
        value = value.value
    if isinstance(value, list | tuple) and all(type(item) is int for item in value):
        with contextlib.suppress(OverflowError):
            value = np.array(value, dtype=np.int64)
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "iu":
        raise InputError(f"{path}: {key}: expected a list of integers, got {_kind(value)}")
    if budget is not None:
        budget.take(8 * len(value))
    return value.astype(np.int64)


def as_texts(path: Path, key: str, value: object) -> list[str]:
    """Convert a value of a pickle, a list of names, to strings."""
    if not isinstance(value, list) or not all(isinstance(item, str | bytes) for item in value):
        raise InputError(f"{path}: {key}: expected a list of names, got {_kind(value)}")
    # A pickle can refer to one long name many times.
    Budget.for_file(path).take(sum(map(len, value)))
    return [as_text(item) for item in value]


def as_indices(path: Path, key: str, value: object) -> dict[str, NDArray[np.int64]]:
    """Convert a value of a pickle, a dict of integer lists by name, to int64 arrays."""
    if not isinstance(value, dict) or not all(isinstance(name, str | bytes) for name in value):
        raise InputError(f"{path}: {key}: expected a dict of class names, got {_kind(value)}")
    budget = Budget.for_file(path)
    return {
        as_text(name): as_integers(path, f"{key}[{shortened(as_text(name))}]", indices, budget)
        for name, indices in value.items()
    }


def by_label(path: Path, images: Sized, value: object) -> dict[int, NDArray[np.int64]]:
    """The indices of the images with each label.

    Args:
        path: the file, for messages.
        images: n images.
        value: n labels, as read from the file.
    """
    labels = as_integers(path, "labels", value)
    if len(labels) != len(images):
        raise InputError(f"{path}: {len(labels)} labels for {len(images)} images")
    order = np.argsort(labels, kind="stable")
    unique, starts = np.unique(labels[order], return_index=True)
    return dict(zip(unique.tolist(), np.split(order, starts[1:]), strict=False))


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return f"a {type(value).__name__.lstrip('_')}"


# Image files, HDF5, JSON, CSV --------------------------------------------------------------------


def read_file(path: Path) -> bytes:
    """The content of an image file."""
    return _content(path, MAX_IMAGE_BYTES)


def _content(path: Path, limit: int) -> bytes:
    try:
        with open_file(path) as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise cannot_read(path, error) from None
    if len(content) > limit:
        raise InputError(f"{path}: larger than the limit of {limit} bytes")
    return content


def image_files(folder: Path) -> list[Path]:
    """The PNG and JPEG files directly in a folder, sorted.

    Hidden files are skipped: macOS writes a `._x.png` next to `x.png` that contains no image.
    """
    return sorted(path for path in folder.glob("*") if is_image_name(path.name))


def is_image_name(name: str) -> bool:
    """Whether a file with this name is taken for a PNG or JPEG image."""
    return name.lower().endswith((".png", ".jpg", ".jpeg")) and not name.startswith(".")


def read_classes(folders: Mapping[str, Path], size: int, *, resize: bool = False) -> Classes:
    """Read the image files of classes, uint8 [n, size, size, 3] each, in the order of the names.

    Args:
        folders: the folder of each class.
        size: height and width in pixels.
        resize: whether to resize images of other sizes; otherwise they are rejected.
    """
    for name in sorted(folders):
        paths = image_files(folders[name])
        if not paths:
            raise InputError(
                f"{folders[name]}: expected PNG or JPEG images of the class, found none"
            )
        yield name, np.stack([read_image(path, size, resize=resize) for path in paths])


def read_image(path: Path, size: int, *, resize: bool = False) -> Images:
    """Read a PNG or JPEG file as uint8 [size, size, 3]. See `decode_image`."""
    return decode_image(str(path), read_file(path), size, resize=resize)


_PNG = b"\x89PNG"

_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1}
"""Bytes per pixel in Pillow's memory, by mode. Other modes need four."""


def decode_image(
    where: str, content: bytes, size: int, *, resize: bool = False, grey: bool = False
) -> Images:
    """Decode a PNG or JPEG file to uint8 [size, size, 3], or [size, size, 1] if `grey`.

    Args:
        where: the file, for messages.
        content: the bytes of the file.
        size: height and width in pixels.
        resize: whether to resize images of other sizes; otherwise they are rejected.
        grey: whether to return one channel instead of three.
    """
    mode = "L" if grey else "RGB"
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            if image.size != (size, size) and not resize:
                check_pixels(where, image)
                raise InputError(
                    f"{where}: expected {size}x{size} pixels, got {image.width}x{image.height}"
                )
            _load(where, content, image, mode)
            decoded = image if image.mode == mode else image.convert(mode)
    except Exception as error:  # Pillow's decoders raise many types of errors
        raise _refusal(where, content, "a PNG or JPEG image", error) from None
    if decoded.size != (size, size):
        # Lanczos also filters high frequencies, which avoids aliasing.
        decoded = decoded.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(decoded).reshape(size, size, -1)


def read_photo(path: Path) -> Image.Image:
    """Read an image file of a user. See `decode_photo`."""
    return decode_photo(str(path), read_file(path))


def decode_photo(where: str, content: bytes) -> Image.Image:
    """Decode an image of a user, in its own size and mode.

    Args:
        where: the file, for messages.
        content: the bytes of the file.

    Raises:
        InputError: the file cannot be read, is damaged, or is too large.
    """
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(io.BytesIO(content), formats=PHOTO_FORMATS) as image,
        ):
            _load(where, content, image, image.mode)
            return image
    except Exception as error:  # Pillow's decoders raise many types of errors
        raise _refusal(where, content, "an image", error) from None


def check_pixels(where: str, image: Image.Image) -> None:
    """Refuse an image of too many pixels. Its size is known before it is decoded."""
    if image.width * image.height > MAX_PIXELS:
        raise InputError(
            f"{where}: {image.width}x{image.height} pixels exceed the limit of {MAX_PIXELS}"
        )


def _load(where: str, content: bytes, image: Image.Image, mode: str) -> None:
    """Decode an image if it, and its copy of another mode, fit into the file's budget."""
    check_pixels(where, image)
    pixel_bytes = _PIXEL_BYTES.get(image.mode, 4)
    if image.mode != mode:
        pixel_bytes += _PIXEL_BYTES.get(mode, 4)
    Budget(where, len(content)).take(image.width * image.height * pixel_bytes)
    image.load()


def _refusal(where: str, content: bytes, expected: str, error: Exception) -> InputError:
    """The error to raise for what went wrong while an image was decoded."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, Image.DecompressionBombError):
        return InputError(f"{where}: more pixels than the limit of {MAX_PIXELS}")
    return InputError(f"{where}: {contrast(content, expected, _PNG)}")


def read_hdf5(path: Path, name: str, shape: tuple[int, ...]) -> Images:
    """Read the images of a class, uint8 [n, *shape], from `datasets/<name>` of an HDF5 file.

    The file itself must contain them as a plain dataset. Soft and external links, virtual datasets,
    external storage and compression by plug-ins are rejected.
    """
    wanted = f"expected uint8 [n, {', '.join(map(str, shape))}] at datasets/{name}"
    # Rejects pipes, on which h5py would block.
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
                raise InputError(f"{path}: datasets/{name}: a chunk is larger than it states")
            images: Images = data[()]
            return images
    except InputError:
        raise
    except Exception:  # h5py raises many types of errors, such as KeyError for missing objects
        magic = b"\x89HDF\r\n\x1a\n"
        raise unexpected(path, "an HDF5 file", f": {wanted}", magic) from None


def _plain_dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset | None:
    """The dataset datasets/<name>; None if it is missing. Follows hard links only."""
    node: Any = file
    for key in ("datasets", name):
        link = node.get(key, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{path}: datasets/{name}: soft and external links are not followed")
        node = node[key]
    if not isinstance(node, h5py.Dataset):
        raise InputError(f"{path}: datasets/{name} is not a dataset")
    settings = node.id.get_create_plist()
    plain = settings.get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)
    if not plain or settings.get_external_count():
        raise InputError(
            f"{path}: datasets/{name} is not a plain dataset: virtual datasets and external "
            "storage are not supported"
        )
    filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
    if len(set(filters)) < len(filters) or not HDF5_FILTERS.issuperset(filters):
        raise InputError(f"{path}: datasets/{name}: unsupported compression")
    return node


def _chunks_fit(data: h5py.Dataset) -> bool:
    """Whether each chunk inflates to at most its stated size. HDF5 checks only after inflating."""
    size = math.prod(data.chunks) + _CHECKSUM
    offsets: list[tuple[int, ...]] = []
    data.id.chunk_iter(lambda chunk: offsets.append(chunk.chunk_offset))
    for offset in offsets:
        mask, stored = data.id.read_direct_chunk(offset)
        # A mask skips filters for this chunk. Ordinary writers do not use it.
        if mask or len(zlib.decompressobj().decompress(stored, size + 1)) > size:
            return False
    return True


_CHECKSUM = 4
"""Bytes that the checksum filter adds to a chunk."""


def read_names(path: Path) -> list[str]:
    """Read a JSON list of unique strings."""
    expected = "a JSON list of class names"
    try:
        names = json.loads(_text(path, expected))
    except (ValueError, RecursionError):
        raise unexpected(path, expected) from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: expected a JSON list of class names")
    duplicate = _first_duplicate(names)
    if duplicate is not None:
        raise InputError(f"{path}: {shortened(duplicate)} is listed twice")
    return names


_FILE_COLUMNS = ("filename", "image_name")
_LABEL_COLUMNS = ("label", "class_name")
"""The names that the columns of a table may have. The second ones are those of easyfsl."""


def read_table(path: Path) -> dict[str, list[str]]:
    """Read the file names of each label from a CSV file.

    The columns are called filename and label, or image_name and class_name. The header may contain
    capitals, and cells may have spaces around them.
    """
    expected = "a CSV file with the columns filename and label, or image_name and class_name"
    files: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    try:
        rows = csv.reader(io.StringIO(_text(path, expected), newline=""))
        columns = [cell.strip().lower() for cell in next(rows, ())]
        found = [
            [index for index, column in enumerate(columns) if column in names]
            for names in (_FILE_COLUMNS, _LABEL_COLUMNS)
        ]
        if any(len(indices) != 1 for indices in found):
            raise unexpected(path, expected)
        cells = [index for (index,) in found]
        for row in filter(None, rows):
            line = f"{path}: line {rows.line_num}"
            if len(row) <= max(cells) or not all(row[cell].strip() for cell in cells):
                raise InputError(f"{line}: expected a filename and a label")
            name, label = (row[cell].strip() for cell in cells)
            if "/" in name or "\\" in name or "\0" in name:
                raise InputError(f"{line}: a filename must not contain a folder")
            if name in lines:
                raise InputError(
                    f"{line}: {shortened(name)} is listed twice, first on line {lines[name]}"
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


def _first_duplicate(items: Sequence[str]) -> str | None:
    seen = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None


def check_names(path: Path, names: Iterable[str], expected: Iterable[str]) -> None:
    """Raise InputError unless `names` and `expected` are the same set."""
    missing, extra = set(expected) - set(names), set(names) - set(expected)
    if missing or extra:
        problems = [
            f"{len(wrong)} {problem} (such as {shortened(min(wrong))})"
            for problem, wrong in (("classes missing", missing), ("unknown classes", extra))
            if wrong
        ]
        raise InputError(f"{path}: not the published classes of this split: {', '.join(problems)}")
