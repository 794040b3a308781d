"""The interface of a data set before it is loaded, and lookup of its files on disk."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from typing_extensions import get_protocol_members

from memmeta.errors import InputError, cannot_read
from memmeta.metric import ACCURACY, Metric
from memmeta.registry import is_import_path

if TYPE_CHECKING:
    from memmeta.data.dataset import Dataset

SPLITS = ("train", "val", "test")

Images = NDArray[np.uint8]
"""uint8 [n, H, W, C]."""

Classes = Iterator[tuple[str, Images]]
"""The classes of a split, one at a time, in the order of their names: (name, images)."""


class TaskShape(NamedTuple):
    """The number of classes and examples of a task."""

    ways: int
    """Classes; 1 for regression."""
    shots: int
    """Support examples per class."""
    queries: int
    """Query examples per class."""
    rotations: bool = False
    """Whether a class rotated by 90, 180 or 270 degrees counts as another class."""


class DataSource(Protocol):
    """A data set before it is loaded, with the properties that other settings depend on."""

    @property
    def name(self) -> str:
        """The name in configs. An entry point or import path replaces it."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one network input: (C, H, W) for images."""

    @property
    def metric(self) -> Metric:
        """The metric of runs on this data."""

    @property
    def has_classes(self) -> bool:
        """Whether tasks have classes; if not, `ways` is 1."""

    @property
    def mirror_keeps_class(self) -> bool:
        """Whether a mirror image belongs to the same class, so that `augment` may be used."""

    @property
    def rotation_makes_class(self) -> bool:
        """Whether a class rotated by 90 degrees may count as another class."""

    def chance_level(self, ways: int) -> float:
        """The expected metric of an uninformed guess, such as 1 / ways for accuracy."""

    def load(self, data_root: Path, cache: Path | None = None) -> "Dataset":
        """Load the data set, after preparing its cache if necessary.

        Args:
            data_root: the folder with its files.
            cache: the folder of prepared data; None: `cache` in the data root.

        Raises:
            InputError: the data is missing or damaged.
        """


@dataclass(frozen=True)
class ImageSource:
    """A `DataSource` of image classes."""

    metric: ClassVar[Metric] = ACCURACY
    has_classes: ClassVar[bool] = True

    name: str
    input_shape: tuple[int, ...]
    """(C, H, W)."""
    read: Callable[[Path, str], Classes]
    """Reads the classes of a split, given the data root. Raises InputError if that fails."""
    mean: tuple[float, ...] | None = None
    """Per channel, on the 0-255 scale; None: computed on the training split."""
    std: tuple[float, ...] | None = None
    """Per channel, on the 0-255 scale; None: computed on the training split."""
    download: Callable[[Path], None] | None = None
    """Downloads the files into the data root; None if the data cannot be downloaded."""
    drawn: bool = False
    """Whether the program draws the images, without source files."""
    mirror_keeps_class: bool = False
    rotation_makes_class: bool = False

    def chance_level(self, ways: int) -> float:
        """1 / ways: the accuracy of guessing."""
        return 1 / ways

    def load(self, data_root: Path, cache: Path | None = None) -> "Dataset":
        """See `DataSource.load`. Processes on the same node share the memory of the images."""
        # PyTorch takes seconds to import.
        from memmeta.data import store

        return store.load(self, data_root, cache)


def as_source(found: object, place: str) -> DataSource:
    """The data set found at an import path: a `DataSource`, or a class of which it is made.

    Raises:
        ValueError: it lacks a property or method of `DataSource`.
    """
    source = found() if isinstance(found, type) else found
    missing = [name for name in get_protocol_members(DataSource) if not hasattr(source, name)]
    if missing:
        raise ValueError(f"{place}: not a data set: it has no {', '.join(sorted(missing))}")
    return cast("DataSource", source)


def cache_name(name: str) -> str:
    """The name of the cache folder of the data set that configs call `name`.

    For an import path it includes a digest of the module's file. Another module of the same name,
    or a later version, therefore has another cache.
    """
    if not is_import_path(name):
        return name
    module, _, attribute = name.partition(":")
    file = import_module(module).__file__
    assert file is not None  # a module with an object in it has a file
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return f"{module}.{attribute}-{digest[:8]}"


class Layout(NamedTuple):
    """One of the forms in which a data set is stored on disk."""

    files: str
    """A pattern of its files, relative to `root`, for messages."""
    root: Path
    """The folder that contains it."""
    paths: tuple[Path, ...]
    """The files or folders that must exist."""
    read: Callable[[], Classes]
    """Reads the classes of one split."""


def class_folders(
    template: str,
    root: Path,
    file_stem: str,
    split: str,
    read: Callable[[Mapping[str, Path]], Classes],
) -> Layout:
    """The form of a data set with a folder for each class of its published splits.

    Args:
        template: the folder of a class below `root`, such as "{split}/{name}".
        root: the folder that contains it.
        file_stem: names the lists of classes, as for `split_classes`.
        split: the split to read.
        read: reads the classes of a split, given the folder of each.
    """

    def folders(of: str) -> dict[str, Path]:
        names = split_classes(file_stem, of)
        return {name: root / template.format(split=of, name=name) for name in names}

    return Layout(
        template.format(split="{train,val,test}", name="<class>"),
        root,
        tuple(folder for of in SPLITS for folder in folders(of).values()),
        partial(read, folders(split)),
    )


class NoDataError(InputError):
    """No complete form of a data set was found."""


def choose(name: str, layouts: Sequence[Layout], advice: str) -> Layout:
    """Return the first layout that is complete.

    Raises:
        InputError: a folder cannot be read.
        NoDataError: no layout is complete. The message lists the expected files, the first missing
            file of each incomplete layout, and `advice` on how to get the data.
    """
    partial = ""
    for layout in layouts:
        try:
            missing = [path for path in layout.paths if not path.exists()]
        except OSError as error:
            raise cannot_read(layout.root, error) from None
        if not missing:
            return layout
        if len(missing) < len(layout.paths):
            partial += f" Found some of {layout.files}, but not {missing[0]}."
    forms = ", or ".join(dict.fromkeys(layout.files for layout in layouts))
    roots = ", ".join(dict.fromkeys(str(layout.root) for layout in layouts))
    raise NoDataError(f"{name}: no data found in {roots}. Looked for {forms}.{partial} {advice}")


def split_classes(file_stem: str, split: str) -> list[str]:
    """The class names of a published split, in the order of its list."""
    path = resources.files("memmeta.data") / "splits" / f"{file_stem}_{split}.txt"
    return path.read_text(encoding="utf-8").split()
