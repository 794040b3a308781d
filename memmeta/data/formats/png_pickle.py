"""Pickled lists of PNG images, read one image at a time.

tieredImageNet is published as a list of NumPy arrays, each with the bytes of a PNG file, 13 GB in
total. The pickle is parsed once without reading the images, which gives the position of each.
"""

import math
import pickle
import struct
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from memmeta.data.formats import images as formats
from memmeta.data.formats import unpickling
from memmeta.data.formats.foreign import Budget, open_file
from memmeta.data.formats.unpickling import (
    Dtype,
    File,
    Handlers,
    Names,
    Unpickler,
    array_names,
    charged,
)
from memmeta.data.sources import Images
from memmeta.errors import InputError

MAX_PNG_BYTES = 2**20
"""Larger images are rejected. An image of 84x84 pixels has 21 KB before compression."""

MAX_STRING_BYTES = 16
"""Longer strings are skipped. Strings that describe arrays are shorter; images are longer."""


class PngList:
    """The images of a pickled list, read on demand."""

    def __init__(self, path: Path) -> None:
        """Locate the images.

        Raises:
            InputError: the file cannot be read, is damaged, or is not a pickled list of PNG images.
        """
        items = unpickling.load(path, _Indexer)
        if not isinstance(items, _Items):
            raise InputError(f"{path}: expected a list of PNG images")
        self.path = path
        self._starts = np.array(items.starts, np.int64)
        self._sizes = np.array(items.sizes, np.int64)
        if len(np.unique(self._starts)) < len(self._starts):
            raise InputError(f"{path}: an image is listed twice")

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, rows: NDArray[np.int64], size: int) -> Images:
        """Read the images with the given indices, uint8 [n, size, size, 3].

        The files were written by OpenCV, which stores arrays in the order blue, green, red but PNG
        files in the usual order. Decoded by Pillow, the channels are red, green, blue.

        Raises:
            InputError: an item is not a PNG image of that size.
        """
        Budget.for_file(self.path).take(len(rows) * size * size * 3)
        images = np.empty((len(rows), size, size, 3), np.uint8)
        with open_file(self.path) as file:
            for image, row in zip(images, rows, strict=True):
                image[:] = self._decode(file, int(row), size)
        return images

    def _decode(self, file: BinaryIO, row: int, size: int) -> Images:
        file.seek(self._starts[row])
        content = file.read(self._sizes[row])
        return formats.decode_image(f"{self.path}: image {row}", content, size)


_STRING_BYTES = 250
"""Memory of a `_String`, in bytes."""


class _String(bytes):
    """A string in the file, with its position and size. The content of skipped strings is empty."""

    start: int
    size: int

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("unsupported state of a string")


class _Png:
    """Stand-in for an array that contains a PNG file."""

    __slots__ = ("content",)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, _, raw = state
        self.set(raw, dtype, shape)

    def set(self, raw: Any, dtype: Any, shape: Any) -> None:
        """Store the bytes of the file, or rather their position."""
        if not isinstance(raw, _String) or not isinstance(dtype, Dtype) or dtype.code != "u1":
            raise pickle.UnpicklingError("an array does not contain bytes")
        if math.prod(shape) != raw.size or raw.size > MAX_PNG_BYTES:
            raise pickle.UnpicklingError(f"unsupported image of {raw.size} bytes")
        self.content = raw


def _from_buffer(raw: object, dtype: object, shape: object, *_: object) -> _Png:
    png = _Png()
    png.set(raw, dtype, shape)
    return png


class _Items:
    """Stand-in for the list, which stores only the position and size of each item."""

    __slots__ = ("sizes", "starts")

    def __init__(self) -> None:
        self.starts = array("q")
        self.sizes = array("q")

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("unsupported state of a list")

    def append(self, item: object) -> None:
        """Store the position of an item."""
        if not isinstance(item, _Png):
            raise pickle.UnpicklingError("an item is not an array of bytes")
        self.starts.append(item.content.start)
        self.sizes.append(item.content.size)

    def extend(self, items: list[object]) -> None:
        """Store the positions of several items."""
        for item in items:
            self.append(item)


class _Memo(dict[int, Any]):
    """The memo of an unpickler: objects that later parts of the pickle may refer to.

    Every array refers to NumPy's types and names, but nothing refers to an array or its parts
    again. The memo drops these, because they would need many times the memory of everything else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __len__(self) -> int:
        # Newer pickles use the length as the key of the next object.
        return self.count

    def __setitem__(self, key: int, value: object) -> None:
        self.count += 1
        per_image = isinstance(value, _Png | tuple) or (isinstance(value, _String) and not value)
        if not per_image:
            super().__setitem__(key, value)


def _string_handler(length: str) -> Callable[["_Indexer"], None]:
    """Create the handler of an opcode for a string.

    Args:
        length: the `struct` format of the length field.
    """
    width = struct.calcsize(length)

    def handle(indexer: "_Indexer") -> None:
        (size,) = struct.unpack(length, indexer.read(width))
        indexer.append(indexer.string(size))

    return handle


class _Indexer(Unpickler):
    """Parses a pickle without reading its images."""

    admitted: ClassVar[Names] = array_names(_Png, _from_buffer)

    def __init__(self, file: File) -> None:
        super().__init__(file)
        self.file = file
        self.memo = _Memo()

    def string(self, size: int) -> _String:
        """The next `size` bytes. Short strings are read, others are skipped."""
        self.budget.take(_STRING_BYTES)
        if size < 0:
            raise pickle.UnpicklingError(f"a string of {size} bytes")
        start = self.file.skip(0)
        if size <= MAX_STRING_BYTES:
            string = _String(self.file.read(size))
        else:
            self.file.skip(size)
            string = _String()
        string.start, string.size = start, size
        return string

    def _list(self) -> None:
        self.append(_Items())

    def _frame(self) -> None:
        # Ignore the frame size: loading a frame would read its images.
        self.read(8)

    dispatch: ClassVar[Handlers] = Unpickler.dispatch | charged(
        {
            pickle.SHORT_BINSTRING[0]: _string_handler("<B"),
            pickle.BINSTRING[0]: _string_handler("<i"),
            pickle.SHORT_BINBYTES[0]: _string_handler("<B"),
            pickle.BINBYTES[0]: _string_handler("<I"),
            pickle.BINBYTES8[0]: _string_handler("<Q"),
            pickle.BYTEARRAY8[0]: _string_handler("<Q"),
            pickle.EMPTY_LIST[0]: _list,
            pickle.FRAME[0]: _frame,
        }
    )
