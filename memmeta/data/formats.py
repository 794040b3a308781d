"""Readers for files that others wrote. Whatever is in a file, reading it runs no code of it.

All of them raise InputError, naming the file and what was expected, for a file that cannot be
read, is cut short, is damaged, or holds something else.
"""

import contextlib
import csv
import json
import pickle
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memmeta.data.sources import Images
from memmeta.errors import InputError

MAX_PIXELS = 100_000_000
"""Larger image files are refused: the largest photograph of ImageNet has a third of that."""

MAX_CLASS_BYTES = 2**30
"""Larger classes in an HDF5 file are refused; compression lets a small file claim any size."""

IMAGE_FORMATS = ("PNG", "JPEG")
"""What Pillow may open. Some of its other decoders start external programs."""


# Pickles -----------------------------------------------------------------------------------------
#
# NumPy's own unpickling trusts the file: a crafted dtype makes it read bytes as pointers. So arrays
# are rebuilt here, from raw bytes and a plain dtype, by stand-ins for the few functions of NumPy
# that a pickled array calls.


class _Dtype:
    """Stands in for numpy.dtype: plain integers, booleans and floats."""

    __slots__ = ("code", "order")

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.code = as_text(code)
        self.order = "="
        if self.code not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"):
            raise pickle.UnpicklingError(f"an array of type {self.code[:20]!r}")

    def __setstate__(self, state: Any) -> None:
        self.order = {"<": "<", ">": ">", "|": "|", "=": "="}[as_text(state[1])]

    def decode(self, raw: bytes) -> NDArray[Any]:
        return np.frombuffer(raw, np.dtype(self.order + self.code))


class _Array:
    """Stands in for numpy.ndarray. `value` is the array, read-only."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = dtype.decode(raw).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(raw: bytes, dtype: _Dtype, shape: Any, order: str, *_: object) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", raw))
    return array


def _scalar(dtype: _Dtype, raw: bytes) -> int | float:
    value: int | float = dtype.decode(raw).item()
    return value


def _encode(text: str, encoding: str) -> bytes:
    # How Python 3 pickles bytes for Python 2.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding[:20]!r}")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("_codecs", "encode"): _encode,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}


class _Global:
    """What the pickle gets for a name: it can be called, and nothing of ours can be changed."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: object) -> Any:
        return self.function(*args)


class _PlainKeys(dict[Any, Any]):
    """A dict for keys whose hash takes no time; that of nested tuples can take for ever."""

    __slots__ = ()

    def __setitem__(self, key: object, value: object) -> None:
        if not isinstance(key, str | bytes | int):
            raise pickle.UnpicklingError(f"a {type(key).__name__} as a key")
        super().__setitem__(key, value)


class _File:
    """A file that refuses to read past its end, before any memory is set aside for that."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.left = size

    def read(self, count: int) -> bytes:
        if count > self.left:
            raise EOFError
        self.left -= count
        return self.file.read(count)

    def readline(self) -> bytes:
        line = self.file.readline()
        self.left -= len(line)
        return line


class _Unpickler(pickle._Unpickler):
    """Plain containers and NumPy arrays.

    The Unpickler in Python rather than the one in C: that one sets aside as much memory as a
    damaged file asks for.
    """

    append: Callable[[object], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def find_class(self, module: str, name: str) -> _Global:
        """The stand-in for a name, if there is one."""
        if (module, name) not in _ADMITTED:
            raise _ForbiddenError(_printable(f"{module}.{name}"))
        return _Global(_ADMITTED[module, name])

    def _empty_dict(self) -> None:
        self.append(_PlainKeys())

    def _dict(self) -> None:
        items = self.pop_mark()
        plain = _PlainKeys()
        for key, value in zip(items[::2], items[1::2], strict=True):
            plain[key] = value
        self.append(plain)

    def _bytearray(self) -> None:
        self.append(self.read(struct.unpack("<Q", self.read(8))[0]))

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.EMPTY_DICT[0]: _empty_dict,
        pickle.DICT[0]: _dict,
        pickle.BYTEARRAY8[0]: _bytearray,
    }
    # Sets hash what is in them; the others are not needed for plain containers and arrays.
    for _opcode in (
        pickle.EMPTY_SET,
        pickle.FROZENSET,
        pickle.ADDITEMS,
        pickle.EXT1,
        pickle.EXT2,
        pickle.EXT4,
        pickle.INST,
        pickle.OBJ,
        pickle.NEWOBJ,
        pickle.NEWOBJ_EX,
        pickle.PERSID,
        pickle.BINPERSID,
        pickle.NEXT_BUFFER,
        pickle.READONLY_BUFFER,
    ):
        del dispatch[_opcode[0]]


class _ForbiddenError(Exception):
    """The name of something that a pickle may not call."""


def read_pickle(path: Path, *keys: str) -> dict[str, Any]:
    """A pickled dict that has `keys`, all of them text, whichever Python wrote it."""
    try:
        with path.open("rb") as file:
            unpickler = _Unpickler(_File(file, path.stat().st_size), encoding="bytes")
            content = unpickler.load()
    except _ForbiddenError as error:
        raise InputError(f"{path}: asks to run {error}; refused") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a damaged pickle can raise whatever a method of a list can raise
        problem = (
            f" ({_printable(str(error))})" if isinstance(error, pickle.UnpicklingError) else ""
        )
        raise InputError(
            f"{path}: not a pickle of plain containers and NumPy arrays, or cut short{problem}"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a dict, it holds a {type(content).__name__}")
    values = {
        as_text(key): value.value if isinstance(value, _Array) else value
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
    if isinstance(value, _Array):
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
        as_text(key): as_integers(path, f"{what}[{_printable(as_text(key))}]", indices)
        for key, indices in value.items()
    }


def by_label(path: Path, images: Images, value: object) -> dict[int, NDArray[np.int64]]:
    """Where the images of each label are.

    Args:
        path: of the file, for messages.
        images: uint8 [n, H, W, C].
        value: the labels as they were in the file.
    """
    labels = as_integers(path, "labels", value)
    if len(labels) != len(images):
        raise InputError(f"{path}: {len(labels)} labels for {len(images)} images")
    return {int(label): np.flatnonzero(labels == label) for label in np.unique(labels)}


def as_text(value: Any) -> Any:
    """Text that Python 2 may have written as bytes; anything else as it is."""
    return value.decode("latin1") if isinstance(value, bytes) else value


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return f"a {type(value).__name__.lstrip('_')}"


def _printable(text: str) -> str:
    """What a file said, short and in plain characters, for a message of one line."""
    return text.encode("unicode_escape").decode()[:80]


# Image files, HDF5, JSON, CSV --------------------------------------------------------------------


def read_image(path: Path, size: int, *, resize: bool = False) -> Images:
    """A PNG or JPEG file as uint8 [size, size, 3]; other sizes are refused unless `resize`."""
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            # The size is known before the image is decoded.
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{path}: {image.width}x{image.height} pixels are too many")
            if image.size != (size, size) and not resize:
                raise InputError(
                    f"{path}: expected {size}x{size} pixels, it has {image.width}x{image.height}"
                )
            picture = image.convert("RGB")
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception:  # Pillow's decoders raise many kinds
        raise InputError(f"{path}: not a PNG or JPEG image, or damaged") from None
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(picture)


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
            f"{len(wrong)} {what} (such as {_printable(min(wrong))})"
            for what, wrong in (("classes missing", missing), ("unknown classes", extra))
            if wrong
        ]
        raise InputError(f"{path}: not the published classes of this split: {', '.join(parts)}")
