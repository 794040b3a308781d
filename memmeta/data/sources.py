"""What a source of images gives to the store, and how it is found on disk."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memmeta.data.formats.foreign import unreadable
from memmeta.errors import InputError

SPLITS = ("train", "val", "test")

Images = NDArray[np.uint8]
"""uint8 [n, H, W, C]."""

Classes = Iterator[tuple[str, Images]]
"""One split: (class name, its images), in the order of the names, one class at a time."""


@dataclass(frozen=True)
class Source:
    """Where the images of one data set come from. Each module beside this one makes its own."""

    read: Callable[[Path, str], Classes]
    """The classes of a split, given the data root; InputError if they are not to be had there."""
    mean: tuple[float, ...] | None = None
    """Per channel, on the 0-255 scale; None: computed on the training split."""
    std: tuple[float, ...] | None = None
    """Likewise."""
    download: Callable[[Path], None] | None = None
    """Fetches the data into the data root, where that is allowed and possible."""
    drawn: bool = False
    """Whether the program draws the images, without any files."""


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
