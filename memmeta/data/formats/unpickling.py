"""A safe unpickler for plain containers and NumPy arrays.

NumPy's unpickling trusts the file: a crafted dtype makes it read bytes as pointers. This module
therefore rebuilds arrays from raw bytes and a plain dtype, with stand-ins for the few NumPy
functions that a pickled array calls. All other names are refused.
"""

import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from memmeta.data.formats.foreign import Budget, open_file, unexpected
from memmeta.errors import InputError, cannot_read, shortened


class Dtype:
    """Stand-in for numpy.dtype that supports integers, booleans and floats."""

    __slots__ = ("code", "order")

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.code = as_text(code)
        self.order = "="
        if self.code not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"):
            raise pickle.UnpicklingError(f"unsupported array type {self.code[:20]!r}")

    def __setstate__(self, state: Any) -> None:
        self.order = {"<": "<", ">": ">", "|": "|", "=": "="}[as_text(state[1])]

    def decode(self, raw: bytes) -> NDArray[Any]:
        """Convert raw bytes to a one-dimensional array."""
        return np.frombuffer(raw, np.dtype(self.order + self.code))


class Array:
    """Stand-in for numpy.ndarray. `value` is the array, read-only."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = dtype.decode(raw).reshape(shape, order="F" if fortran else "C")


def _from_buffer(raw: bytes, dtype: Dtype, shape: Any, order: str, *_: object) -> Array:
    array = Array()
    array.__setstate__((1, shape, dtype, order == "F", raw))
    return array


def _scalar(dtype: Dtype, raw: bytes) -> int | float:
    value: int | float = dtype.decode(raw).item()
    return value


def _encode(text: str, encoding: str) -> bytes:
    # Python 3 pickles bytes as such calls in protocols for Python 2.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unsupported encoding {encoding[:20]!r}")
    return text.encode("latin1")


def _type(*_: object) -> None:
    # A pickled defaultdict refers to the type of its values without calling it.
    raise pickle.UnpicklingError("unsupported call of a type")


Names = dict[tuple[str, str], Callable[..., Any]]
"""Stand-ins by module and name."""


def array_names(array: Callable[[], Any], from_buffer: Callable[..., Any]) -> Names:
    """Stand-ins for the names that a pickled array refers to.

    Args:
        array: creates an empty stand-in for an array, with a `__setstate__` like that of an array.
        from_buffer: creates a complete one, from the arguments of NumPy's `_frombuffer`.
    """
    return {
        ("numpy", "dtype"): Dtype,
        ("numpy", "ndarray"): array,
        **{
            (f"numpy.{core}.{module}", name): stand_in
            for core in ("core", "_core")
            for module, name, stand_in in (
                ("multiarray", "_reconstruct", lambda *_: array()),
                ("numeric", "_frombuffer", from_buffer),
            )
        },
    }


class Global:
    """The object that a pickle gets for a name. A pickle can call it but not set attributes."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: object) -> Any:
        """Call the stand-in."""
        return self.function(*args)


class _PlainKeys(dict[Any, Any]):
    """A dict that accepts only keys that are fast to hash; hashing nested tuples may never end."""

    __slots__ = ()

    @classmethod
    def from_pairs(cls, pairs: Any = ()) -> Self:
        """Stand-in for collections.OrderedDict, which Python 2 pickles with its items."""
        plain = cls()
        for key, value in pairs:
            plain[key] = value
        return plain

    def __setitem__(self, key: object, value: object) -> None:
        # Large integers can be crafted to have equal hashes; text cannot.
        if not isinstance(key, str | bytes | int) or (isinstance(key, int) and key >> 32 > 0):
            raise pickle.UnpicklingError(f"unsupported {type(key).__name__} as a key")
        super().__setitem__(key, value)


class File:
    """A file that rejects reads past its end before memory for them is allocated."""

    def __init__(self, file: BinaryIO, budget: Budget) -> None:
        self.file = file
        self.budget = budget
        self.left = budget.size

    def skip(self, count: int) -> int:
        """Skip bytes without reading them, and return their position."""
        if count > self.left:
            raise EOFError
        self.left -= count
        start = self.file.tell()
        self.file.seek(start + count)
        return start

    def read(self, count: int) -> bytes:
        """Read exactly `count` bytes."""
        if count > self.left:
            raise EOFError
        self.left -= count
        return self.file.read(count)

    def readline(self) -> bytes:
        """Read up to and including the end of the line."""
        line = self.file.readline()
        self.left -= len(line)
        return line


Handlers = dict[int, Callable[[Any], None]]
"""The methods of an unpickler, by opcode."""

_OPCODE_BYTES = 48
"""Average memory per opcode in lists of numbers, the densest pickles."""


def charged(handlers: Handlers) -> Handlers:
    """Make each handler first charge the unpickler's budget for its opcode."""

    def charging(handler: Callable[[Any], None]) -> Callable[[Any], None]:
        def handle(unpickler: Any) -> None:
            unpickler.budget.take(_OPCODE_BYTES)
            handler(unpickler)

        return handle

    return {opcode: charging(handler) for opcode, handler in handlers.items()}


class Unpickler(pickle._Unpickler):
    """Unpickles plain containers and NumPy arrays. Text from Python 2 becomes bytes.

    Based on the Unpickler written in Python, because the one in C allocates as much memory as a
    damaged file asks for.
    """

    admitted: ClassVar[Names] = {
        **array_names(Array, _from_buffer),
        ("numpy.core.multiarray", "scalar"): _scalar,
        ("numpy._core.multiarray", "scalar"): _scalar,
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): _PlainKeys.from_pairs,
        ("collections", "defaultdict"): lambda *_: _PlainKeys(),
        **{
            (module, name): _type
            for module in ("builtins", "__builtin__")
            for name in ("dict", "float", "int", "list")
        },
    }

    stack: list[Any]
    append: Callable[[object], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: File) -> None:
        super().__init__(file, encoding="bytes")
        self.budget = file.budget

    def find_class(self, module: str, name: str) -> Global:
        """Return the stand-in for a name.

        Raises:
            ForbiddenError: there is none.
        """
        if (module, name) not in self.admitted:
            raise ForbiddenError(shortened(f"{module}.{name}"))
        return Global(self.admitted[module, name])

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

    def _reduce(self) -> None:
        reduce: Callable[[Any], None] = pickle._Unpickler.dispatch[pickle.REDUCE[0]]
        reduce(self)
        # A pickle can encode the same text many times.
        self.budget.take(sys.getsizeof(self.stack[-1]))

    _handlers: ClassVar[Handlers] = {
        **pickle._Unpickler.dispatch,
        pickle.EMPTY_DICT[0]: _empty_dict,
        pickle.DICT[0]: _dict,
        pickle.BYTEARRAY8[0]: _bytearray,
        pickle.REDUCE[0]: _reduce,
    }
    # Sets hash their elements. The other opcodes are not needed for plain containers and arrays.
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
        del _handlers[_opcode[0]]
    dispatch: ClassVar[Handlers] = charged(_handlers)


class ForbiddenError(Exception):
    """A pickle refers to a name without a stand-in; the message is the name."""


def load(path: Path, unpickler: type[Unpickler] = Unpickler) -> Any:
    """Read a pickle. The default unpickler returns arrays as `Array`.

    Raises:
        InputError: the file cannot be read, is damaged, or contains other types.
    """
    try:
        with open_file(path) as file:
            return unpickler(File(file, Budget.for_file(path))).load()
    except InputError:
        raise
    except ForbiddenError as error:
        raise InputError(f"{path}: refused: the pickle would call {error}") from None
    except OSError as error:
        raise cannot_read(path, error) from None
    except Exception as error:  # damaged pickles raise many types of errors
        problem = f" ({shortened(str(error))})" if isinstance(error, pickle.UnpicklingError) else ""
        expected = "a pickle of plain containers and NumPy arrays"
        raise unexpected(path, expected, problem) from None


def as_text(value: Any) -> Any:
    """Decode bytes, which may be text from Python 2; return other values unchanged."""
    return value.decode("latin1") if isinstance(value, bytes) else value
