"""Where data sets come from, and what is known of them before they are loaded."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from memmeta.data.formats.foreign import unreadable
from memmeta.errors import InputError
from memmeta.metric import ACCURACY, Metric

if TYPE_CHECKING:
    from memmeta.data.dataset import Dataset

SPLITS = ("train", "val", "test")

Images = NDArray[np.uint8]
"""uint8 [n, H, W, C]."""

Classes = Iterator[tuple[str, Images]]
"""One split: (class name, its images), in the order of the names, one class at a time."""


class TaskShape(NamedTuple):
    """How many examples a task has."""

    ways: int
    """Classes; 1 for regression."""
    shots: int
    """Support examples per class."""
    queries: int
    """Query examples per class."""
    rotations: bool = False
    """Whether a class that is turned by 90, 180 or 270 degrees counts as another class."""


class DataSource(Protocol):
    """A data set as configs know it, before it is loaded."""

    @property
    def name(self) -> str:
        """The name in configs."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one network input: (C, H, W) for images."""

    @property
    def metric(self) -> Metric:
        """What a run on this data is judged by."""

    @property
    def has_classes(self) -> bool:
        """Whether tasks have classes; if not, `ways` is 1."""

    @property
    def mirror_keeps_class(self) -> bool:
        """Whether a mirror image is of the same class, so that `augment` may be used."""

    @property
    def rotation_makes_class(self) -> bool:
        """Whether a class that is turned by 90 degrees may count as another class."""

    def chance_level(self, ways: int) -> float:
        """The expected metric of a learner that knows nothing."""

    def load(self, data_root: Path, cache: Path | None = None) -> "Dataset":
        """The data set, prepared first if it was not yet.

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
    """The classes of a split, given the data root. Raises InputError if they cannot be read."""
    mean: tuple[float, ...] | None = None
    """Per channel, on the 0-255 scale; None: computed on the training split."""
    std: tuple[float, ...] | None = None
    """Per channel, on the 0-255 scale; None: computed on the training split."""
    download: Callable[[Path], None] | None = None
    """Fetches the files into the data root; None if the data cannot be downloaded."""
    drawn: bool = False
    """Whether the program draws the images, without any files."""
    mirror_keeps_class: bool = False
    rotation_makes_class: bool = False

    def chance_level(self, ways: int) -> float:
        """1 / ways: the accuracy of guessing."""
        return 1 / ways

    def load(self, data_root: Path, cache: Path | None = None) -> "Dataset":
        """See `DataSource.load`. All processes of a node share the images' memory pages."""
        # PyTorch takes seconds to import.
        from memmeta.data import store

        return store.load(self, data_root, cache)


class Layout(NamedTuple):
    """One of the forms in which a data set lies on disk."""

    what: str
    """What a user would call it: its files, as seen from `root`."""
    root: Path
    """The folder it is in."""
    paths: tuple[Path, ...]
    """What has to exist."""
    read: Callable[[], Classes]
    """The classes of the split in question."""


class NoDataError(InputError):
    """No complete form of a data set was found."""


def choose(name: str, layouts: Sequence[Layout], advice: str) -> Layout:
    """The first layout that is complete.

    Raises:
        InputError: a folder cannot be read.
        NoDataError: no layout is complete. The message lists the forms looked for, the first
            missing file of an incomplete one, and `advice` on how to get the data.
    """
    partial = ""
    for layout in layouts:
        try:
            missing = [path for path in layout.paths if not path.exists()]
        except OSError as error:
            raise unreadable(layout.root, error) from None
        if not missing:
            return layout
        if len(missing) < len(layout.paths):
            partial += f" There is some of {layout.what}, but not {missing[0]}."
    forms = ", or ".join(dict.fromkeys(layout.what for layout in layouts))
    roots = ", ".join(dict.fromkeys(str(layout.root) for layout in layouts))
    raise NoDataError(f"{name}: no data found in {roots}. Looked for {forms}.{partial} {advice}")


def split_classes(file_stem: str, split: str) -> list[str]:
    """The class names of a published split, in the order of its list."""
    path = resources.files("memmeta.data") / "splits" / f"{file_stem}_{split}.txt"
    return path.read_text(encoding="utf-8").split()
