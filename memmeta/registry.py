"""Objects that configs name: built in, registered, or found at an import path."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from importlib import import_module, metadata
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from memmeta.errors import InputError, did_you_mean, shortened, shown
from memmeta.system.files import resolved

T = TypeVar("T")


class ImportPath(str):
    """The import path of an object: `package.module:object`."""


def import_object(place: str) -> Any:
    """Import the object at `package.module:object`.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has no such object.
    """
    module, _, name = place.partition(":")
    return attrgetter(name)(import_module(module))


def import_path_of(found: Any) -> ImportPath:
    """The import path of a function or class.

    Raises:
        ValueError: it cannot be imported by its name, such as a lambda or a function in a function.

    Examples:
        >>> from torch import nn
        >>> import_path_of(nn.Linear)
        'torch.nn.modules.linear:Linear'
    """
    path = ImportPath(f"{getattr(found, '__module__', '')}:{getattr(found, '__qualname__', '')}")
    try:
        same = import_object(path) is found
    except (ImportError, AttributeError, ValueError):
        same = False
    if not same:
        raise ValueError("a function cannot be imported by its name: define it in a module")
    return path


def is_import_path(name: str) -> bool:
    """Whether a name in a config is an import path, instead of the name of a registered object."""
    return ":" in name


def search_also(folder: Path) -> None:
    """Append a folder to the search path of modules."""
    path = str(resolved(folder))
    if path not in sys.path:
        sys.path.append(path)


class UntrustedCodeError(InputError):
    """A file names code by an import path, and nobody said that the file is trusted."""


_TRUSTED: ContextVar[Collection[str] | None] = ContextVar("import paths to trust", default=None)
"""The import paths that may be imported; None: all."""


@contextmanager
def trusting(paths: Collection[str] | None) -> Iterator[None]:
    """Refuse other import paths than these in the block, so that a file cannot choose what runs.

    Args:
        paths: the import paths; None: all are trusted.

    Examples:
        >>> colours = Registry[str]("colour", {})
        >>> try:
        ...     with trusting([]):
        ...         colours["string:hexdigits"]
        ... except UntrustedCodeError:
        ...     print("refused")
        refused
    """
    token = _TRUSTED.set(paths)
    try:
        yield
    finally:
        _TRUSTED.reset(token)


class Registry(Generic[T]):
    """Named objects of one kind.

    A name is looked up among the built-in and registered objects, then among the entry points of
    installed packages. A name with a colon is an import path: `package.module:object`, of an
    installed package or of a module in the current folder.

    Instead of an object, its `ImportPath` may be registered. The object is then imported on first
    use, so that commands that do not need PyTorch start quickly.

    Examples:
        >>> colours = Registry[str]("colour", {"red": "#ff0000"})
        >>> colours["red"]
        '#ff0000'
        >>> colours["string:hexdigits"]
        '0123456789abcdefABCDEF'
        >>> colours["rad"]
        Traceback (most recent call last):
        ValueError: no such colour (did you mean red?), choose from red
    """

    def __init__(
        self,
        kind: str,
        objects: Mapping[str, "T | ImportPath"],
        *,
        group: str | None = None,
        adopt: Callable[[Any, str], T] | None = None,
    ) -> None:
        """Create a registry.

        Args:
            kind: name of this kind of objects, for messages.
            objects: the built-in objects, or their places, by name.
            group: the group of entry points under which packages offer further objects.
            adopt: makes an object of this kind from what is found at an import path, given the
                path. Raises ValueError if that is not possible. None: the object is used as it is.
        """
        self._kind = kind
        self._objects = dict(objects)
        self._built_in = frozenset(objects)
        self._group = group
        self._adopt = adopt
        self._found: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        """The object called `name`.

        Raises:
            ValueError: there is none, or it cannot be imported.
        """
        self.check(name)
        value = self._objects.get(name, ImportPath(self._offered.get(name, name)))
        if not isinstance(value, ImportPath):
            return value
        if name not in self._found:
            found = import_own(value)
            self._found[name] = self._adopt(found, value) if self._adopt else found
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        """The names: built-in and registered ones, then those of installed packages."""
        yield from self._objects
        yield from (name for name in self._offered if name not in self._objects)

    def names(self, fits: Callable[[T], bool]) -> list[str]:
        """The names of the objects for which `fits` is true. Imports all objects."""
        return [name for name in self if fits(self[name])]

    def check(self, name: str) -> str:
        """Return `name` if an object has it, or if it is an import path. Imports nothing.

        Raises:
            ValueError: neither.
            UntrustedCodeError: the import path is not among those of `trusting`.
        """
        if name in self._objects or name in self._offered:
            return name
        if is_import_path(name):
            _check_trusted(name)
            return name
        meant = did_you_mean(name, self)
        raise ValueError(f"no such {self._kind}{meant}, choose from {', '.join(self)}")

    def register(self, name: str, what: "T | ImportPath") -> None:
        """Add an object, or its `ImportPath`.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._objects:
            raise ValueError(f"there is a {self._kind} of that name already")
        self._objects[name] = what

    def path_for_others(self, name: str) -> ImportPath | None:
        """The import path from which another process gets the object; None if it is built in.

        Raises:
            ValueError: the object was registered in this process, where others do not find it.
        """
        if name in self._built_in:
            return None
        if name in self._objects:
            raise ValueError(
                f"{self._kind} {name} is registered in this process only: name it by its import "
                f"path, package.module:object, or offer it as an entry point of {self._group}"
            )
        path = self._offered.get(name, name)
        return ImportPath(path) if is_import_path(path) else None

    @cached_property
    def _offered(self) -> dict[str, str]:
        """The import paths that installed packages offer as entry points, by name."""
        if self._group is None:
            return {}
        return {entry.name: entry.value for entry in metadata.entry_points(group=self._group)}


def _check_trusted(path: str) -> None:
    trusted = _TRUSTED.get()
    if trusted is not None and path not in trusted:
        raise UntrustedCodeError(
            f"names code, {shortened(path)}, which runs only if you trust it: --trust-code, in "
            "Python trust_code=True"
        )


def import_own(place: str) -> Any:
    """Import the object at `package.module:object` in code that memmeta does not know.

    Modules in the current folder are found too, after the installed ones.

    Raises:
        ValueError: it cannot be imported. Modules of users may fail in any way.
    """
    search_also(Path())
    module, _, name = place.partition(":")
    try:
        owner = import_module(module)
    except (Exception, SystemExit) as error:
        reason = shortened(f"{type(error).__name__}: {error}")
        raise ValueError(f"{shortened(module or place)} cannot be imported: {reason}") from None
    try:
        return attrgetter(name)(owner)
    except AttributeError:
        meant = did_you_mean(name, vars(owner))
        raise ValueError(f"module {module} has no object {shortened(name)}{meant}") from None


def adopt_as(kind: Callable[[ImportPath], T]) -> Callable[[Any, str], T]:
    """A function that accepts an instance of the class `kind`, or makes one from a callable's path.

    Args:
        kind: a class that is made from the import path of a function.
    """

    def adopt(found: Any, place: str) -> T:
        if isinstance(found, cast(type, kind)):
            return cast(T, found)
        if callable(found):
            return kind(ImportPath(place))
        name = cast(type, kind).__name__
        raise ValueError(f"{place}: a function or {name} is expected, got {shown(found)}")

    return adopt
