"""Pickled lists of PNG images, read one image at a time.

tieredImageNet comes as a list of NumPy arrays, each the bytes of a PNG file, 13 GB in all. The
pickle is parsed once with its images passed over, which leaves where each of them lies.
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
"""Larger images are refused: one of 84x84 pixels has 21 KB before compression."""

LONGEST_READ = 16
"""Longer strings are passed over: those that describe arrays are shorter, those of images not."""


class PngList:
    """The images of a file, without any of them in memory."""

    def __init__(self, path: Path) -> None:
        """Find the images.

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
        """Some of the images, uint8 [n, size, size, 3].

        The images are OpenCV's: it takes arrays to be blue, green, red and writes files as files
        are, red first. So what Pillow decodes is red, green, blue.

        Raises:
            InputError: one of them is no PNG image of that size.
        """
        Budget.of(self.path).take(len(rows) * size * size * 3)
        images = np.empty((len(rows), size, size, 3), np.uint8)
        with open_file(self.path) as file:
            for image, row in zip(images, rows, strict=True):
                image[:] = self._decode(file, int(row), size)
        return images

    def _decode(self, file: BinaryIO, row: int, size: int) -> Images:
        file.seek(self._starts[row])
        content = file.read(self._sizes[row])
        return formats.decode_image(f"{self.path}: image {row}", content, size)


_PIECE = 250
"""Bytes of memory of a `_Piece`."""


class _Piece(bytes):
    """A string in the file, and where it lies. One that was passed over is empty."""

    start: int
    size: int

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a string with a state")


class _Png:
    """Stands in for an array that holds a PNG file."""

    __slots__ = ("piece",)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, _, raw = state
        self.set(raw, dtype, shape)

    def set(self, raw: Any, dtype: Any, shape: Any) -> None:
        """Take note of the place of the bytes."""
        if not isinstance(raw, _Piece) or not isinstance(dtype, Dtype) or dtype.code != "u1":
            raise pickle.UnpicklingError("an array of something else than bytes")
        if math.prod(shape) != raw.size or raw.size > MAX_PNG_BYTES:
            raise pickle.UnpicklingError(f"an image of {raw.size} bytes")
        self.piece = raw


def _from_buffer(raw: object, dtype: object, shape: object, *_: object) -> _Png:
    png = _Png()
    png.set(raw, dtype, shape)
    return png


class _Items:
    """Stands in for the list: of each item it keeps the place."""

    __slots__ = ("sizes", "starts")

    def __init__(self) -> None:
        self.starts = array("q")
        self.sizes = array("q")

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a list with a state")

    def append(self, item: object) -> None:
        """Take note of an item."""
        if not isinstance(item, _Png):
            raise pickle.UnpicklingError("an item that is no array of bytes")
        self.starts.append(item.piece.start)
        self.sizes.append(item.piece.size)

    def extend(self, items: list[object]) -> None:
        """Take note of many."""
        for item in items:
            self.append(item)


class _Memo(dict[int, Any]):
    """What later parts of a pickle may refer to, less what is there once for each image.

    NumPy's types and names are referred to by every array; an array and what it is made of never
    are. With them the memo would be many times the size of all else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __len__(self) -> int:
        # Newer pickles number what they put here by this.
        return self.count

    def __setitem__(self, key: int, value: object) -> None:
        self.count += 1
        single = isinstance(value, _Png | tuple) or (isinstance(value, _Piece) and not value)
        if not single:
            super().__setitem__(key, value)


def _string(length: str) -> Callable[["_Indexer"], None]:
    """The handler of an opcode for a string.

    Args:
        length: how its length is written, in the letters of struct.
    """
    width = struct.calcsize(length)

    def handle(indexer: "_Indexer") -> None:
        (size,) = struct.unpack(length, indexer.read(width))
        indexer.append(indexer.piece(size))

    return handle


class _Indexer(Unpickler):
    """Parses a pickle without its images."""

    admitted: ClassVar[Names] = array_names(_Png, _from_buffer)

    def __init__(self, file: File) -> None:
        super().__init__(file)
        self.file = file
        self.memo = _Memo()

    def piece(self, size: int) -> _Piece:
        """The next `size` bytes, read if they are few."""
        self.budget.take(_PIECE)
        if size < 0:
            raise pickle.UnpicklingError(f"a string of {size} bytes")
        start = self.file.skip(0)
        if size <= LONGEST_READ:
            piece = _Piece(self.file.read(size))
        else:
            self.file.skip(size)
            piece = _Piece()
        piece.start, piece.size = start, size
        return piece

    def _list(self) -> None:
        self.append(_Items())

    def _frame(self) -> None:
        # Frames say how much to read at once, and that is what this class is not to do.
        self.read(8)

    dispatch: ClassVar[Handlers] = Unpickler.dispatch | charged(
        {
            pickle.SHORT_BINSTRING[0]: _string("<B"),
            pickle.BINSTRING[0]: _string("<i"),
            pickle.SHORT_BINBYTES[0]: _string("<B"),
            pickle.BINBYTES[0]: _string("<I"),
            pickle.BINBYTES8[0]: _string("<Q"),
            pickle.BYTEARRAY8[0]: _string("<Q"),
            pickle.EMPTY_LIST[0]: _list,
            pickle.FRAME[0]: _frame,
        }
    )
