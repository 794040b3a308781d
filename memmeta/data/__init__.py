"""Data sets and the few-shot tasks drawn from them."""

from pathlib import Path

from memmeta.data import store
from memmeta.data.dataset import Dataset, ImageDataset, SplitName, check_episodes
from memmeta.data.episodes import Episodes, Split, sample_episodes, to_float
from memmeta.data.sets import cifar, glyphs, mini_imagenet, omniglot, tiered_imagenet
from memmeta.data.sets.sinusoid import Sinusoid
from memmeta.data.sources import SPLITS, NoDataError, Source
from memmeta.errors import InputError

__all__ = [
    "INPUT_SHAPES",
    "SPLITS",
    "Dataset",
    "Episodes",
    "ImageDataset",
    "NoDataError",
    "Split",
    "SplitName",
    "check_episodes",
    "download",
    "load",
    "prepare",
    "sample_episodes",
    "to_float",
    "try_out",
]

SOURCES: dict[str, Source] = {
    "glyphs": glyphs.SOURCE,
    "cifar_fs": cifar.CIFAR_FS,
    "fc100": cifar.FC100,
    "miniimagenet": mini_imagenet.SOURCE,
    "tieredimagenet": tiered_imagenet.SOURCE,
    "omniglot": omniglot.SOURCE,
}

INPUT_SHAPES: dict[str, tuple[int, ...]] = {
    "glyphs": (1, 28, 28),
    "cifar_fs": (3, 32, 32),
    "fc100": (3, 32, 32),
    "miniimagenet": (3, 84, 84),
    "tieredimagenet": (3, 84, 84),
    "omniglot": (1, 28, 28),
    "sinusoid": (1,),
}
"""Of one input of each data set, as a backbone gets it; known without the data."""


def prepare(name: str, data_root: Path, cache: Path | None = None) -> Path:
    """Make the cache of a data set, once, and return its folder.

    Any number of processes may call this at the same time. A cache once made is used even if the
    files it was read from change or go: delete the folder to read them again.

    Args:
        name: of the data set.
        data_root: where its files are looked for.
        cache: folder of all caches; None: `cache` in the data root.

    Raises:
        InputError: no such data set; its files are missing or damaged; the cache cannot be written.
    """
    return store.prepare(name, _source(name), data_root, cache)


def load(name: str, data_root: Path, cache: Path | None = None) -> Dataset:
    """The data set, prepared if it was not yet. All processes of a node share its pages.

    Sinusoid has no files and nothing to prepare.

    Raises:
        InputError: as `prepare`.
    """
    if name == Sinusoid.name:
        return Sinusoid()
    return store.load(name, _source(name), data_root, cache)


def try_out(name: str, data_root: Path, cache: Path | None = None) -> None:
    """Do what `load` would do, up to the first class of each split, and leave nothing behind.

    Raises:
        NoDataError: no form of the data set was found.
        InputError: as `prepare`.
    """
    if name != Sinusoid.name:
        store.try_out(name, _source(name), data_root, cache)


def download(name: str, data_root: Path) -> None:
    """Fetch the files of a data set into `data_root`. Nothing is downloaded but by this function.

    Raises:
        InputError: no such data set; it cannot be downloaded; the network or the disk refuses.
    """
    source = _source(name)
    if source.download is None:
        raise InputError(f"{name}: not a data set that can be downloaded")
    source.download(data_root)


def _source(name: str) -> Source:
    if name == Sinusoid.name:
        raise InputError(f"{name}: drawn from its definition, it has no files")
    if name not in SOURCES:
        known = ", ".join((*SOURCES, Sinusoid.name))
        raise InputError(f"{name}: no such data set, choose from {known}")
    return SOURCES[name]
