"""Objects that configs name."""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

from memmeta.errors import did_you_mean

T = TypeVar("T")


def import_object(place: str) -> Any:
    """Import the object at `package.module:object`.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has no such object.
    """
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


class Registry(Generic[T]):
    """Named objects of one kind.

    Instead of an object, its `ImportPath` may be registered. The object is then imported on first
    use, so that commands that do not need PyTorch start quickly.

    Examples:
        >>> colours = Registry[str]("colour", {"red": "#ff0000"})
        >>> colours["red"]
        '#ff0000'
        >>> colours["rad"]
        Traceback (most recent call last):
        ValueError: no such colour (did you mean red?), choose from red
    """

    def __init__(self, kind: str, objects: Mapping[str, "T | ImportPath"]) -> None:
        """Create a registry.

        Args:
            kind: name of this kind of objects, for messages.
            objects: the built-in objects, or their places, by name.
        """
        self._kind = kind
        self._objects = dict(objects)

    def __getitem__(self, name: str) -> T:
        """The object called `name`.

        Raises:
            ValueError: there is none.
        """
        self.check(name)
        value = self._objects[name]
        if isinstance(value, ImportPath):
            value = self._objects[name] = import_object(value)
        return value

    def __iter__(self) -> Iterator[str]:
        """The names, in the order of registration."""
        return iter(self._objects)

    def names(self, fits: Callable[[T], bool]) -> list[str]:
        """The names of the objects for which `fits` is true. Imports all objects."""
        return [name for name in self if fits(self[name])]

    def check(self, name: str) -> str:
        """Return `name` if an object has it. Does not import the object.

        Raises:
            ValueError: no object has it.
        """
        if name not in self._objects:
            meant = did_you_mean(name, self)
            raise ValueError(f"no such {self._kind}{meant}, choose from {', '.join(self)}")
        return name

    def register(self, name: str, what: "T | ImportPath") -> None:
        """Add an object, or its `ImportPath`.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._objects:
            raise ValueError(f"there is a {self._kind} of that name already")
        self._objects[name] = what


class ImportPath(str):
    """The import path of an object: `package.module:object`."""
