"""Data sets and the few-shot tasks drawn from them."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from memmeta.data import own
from memmeta.data.sources import DataSource, ImageSource, as_source
from memmeta.errors import InputError, did_you_mean, shortened
from memmeta.registry import ImportPath, Registry, is_import_path
from memmeta.settings.arguments import AnyPath, checked

if TYPE_CHECKING:
    from memmeta.data.dataset import Dataset

DATA_SETS: Registry[DataSource] = Registry(
    "data set",
    {
        "glyphs": ImportPath("memmeta.data.sets.glyphs:GLYPHS"),
        "cifar_fs": ImportPath("memmeta.data.sets.cifar:CIFAR_FS"),
        "fc100": ImportPath("memmeta.data.sets.cifar:FC100"),
        "miniimagenet": ImportPath("memmeta.data.sets.mini_imagenet:MINI_IMAGENET"),
        "tieredimagenet": ImportPath("memmeta.data.sets.tiered_imagenet:TIERED_IMAGENET"),
        "omniglot": ImportPath("memmeta.data.sets.omniglot:OMNIGLOT"),
        "sinusoid": ImportPath("memmeta.data.sets.sinusoid:SINUSOID"),
    },
    group="memmeta.datasets",
    adopt=as_source,
)
"""Data sets by the name that configs use. Prepared images of users have other names."""


def is_registered(name: str) -> bool:
    """Whether a name is in `DATA_SETS` or an import path, not that of a user's own images."""
    return is_import_path(name) or name in DATA_SETS


def unknown(name: str, cache: Path) -> str:
    """A message about an unknown name: the nearest name, and all names.

    Args:
        name: the name of no data set.
        cache: the folder of caches that was searched for prepared images.
    """
    known = [*DATA_SETS, *own.names(cache)]
    return (
        f"no such data set{did_you_mean(name, known)}, choose from {', '.join(known)}; own images "
        f"are prepared with memmeta data prepare, and looked for in {cache}"
    )


def load(name: str, data_root: Path, cache: Path | None = None) -> "Dataset":
    """Load the data set `name`, after preparing its cache if necessary. See `DataSource.load`.

    Returns:
        The data set. Its `name` is `name`.

    Raises:
        InputError: no such data set; its files are missing or damaged; the cache cannot be written.
    """
    dataset = _source(name, data_root, cache).load(data_root, cache)
    if dataset.name == name:
        return dataset
    from memmeta.data.dataset import Renamed

    return Renamed(dataset, name)


@checked
def load_dataset(name: str, root: AnyPath = "data", cache: AnyPath | None = None) -> "Dataset":
    """Load a data set, after preparing its cache if necessary.

    Args:
        name: a name in `DATA_SETS`, that of prepared images, or an import path
            (`package.module:object`). `glyphs` and `sinusoid` need no files; `memmeta data list`
            says how to get the others.
        root: the folder with the files of data sets.
        cache: the folder of prepared data; None: `cache` in the root.

    Raises:
        InputError: no such data set; its files are missing or damaged; the cache cannot be written.

    Examples:
        >>> load_dataset("sinusoid").input_shape
        (1,)
    """
    # PyTorch takes seconds to import.
    from memmeta.system.runtime import usual_modes

    with usual_modes():
        return load(name, Path(root), None if cache is None else Path(cache))


def prepare(name: str, data_root: Path, cache: Path | None = None) -> Path:
    """Create the cache of a data set if there is none, and return its folder.

    Any number of processes may call this at the same time. A complete cache is used even if the
    source files change or disappear; delete the folder to read them again.

    Args:
        name: the data set.
        data_root: the folder with its files.
        cache: the folder of all caches; None: `cache` in the data root.

    Raises:
        InputError: see `load`; or the data set has no files.
    """
    # PyTorch takes seconds to import.
    from memmeta.data import store

    return store.prepare(_with_files(name, data_root, cache), data_root, cache)


def try_out(name: str, data_root: Path, cache: Path | None = None) -> None:
    """Check that `load` would work: read the first class of each split, without writing a cache.

    Raises:
        NoDataError: no form of the data set was found.
        InputError: see `load`.
    """
    from memmeta.data import store

    source = _source(name, data_root, cache)
    if isinstance(source, ImageSource):
        store.try_out(source, data_root, cache)


def download(name: str, data_root: Path) -> None:
    """Download the files of a data set into `data_root`. No other function downloads anything.

    Raises:
        InputError: no such data set; it cannot be downloaded; a network or disk error.
    """
    source = _with_files(name, data_root)
    if source.download is None:
        raise InputError(f"{name}: cannot be downloaded")
    source.download(data_root)


def image_sources() -> dict[str, ImageSource]:
    """The data sets of images, by name."""
    sources = {name: _registered(name) for name in DATA_SETS}
    return {name: source for name, source in sources.items() if isinstance(source, ImageSource)}


def _source(name: str, data_root: Path, cache: Path | None) -> DataSource:
    """The data set called `name` in configs, which names its cache too."""
    if is_registered(name):
        return _registered(name)
    folder = cache or data_root / "cache"
    shape = own.find_shape(name, folder)
    if shape is None:
        raise InputError(f"{name}: {unknown(name, folder)}")
    return own.own_source(name, shape)


def _registered(name: str) -> DataSource:
    try:
        source = DATA_SETS[name]
    except ValueError as error:
        raise InputError(f"{shortened(name)}: {error}") from None
    return dataclasses.replace(source, name=name) if isinstance(source, ImageSource) else source


def _with_files(name: str, data_root: Path, cache: Path | None = None) -> ImageSource:
    source = _source(name, data_root, cache)
    if not isinstance(source, ImageSource):
        raise InputError(f"{name}: has no files, it is generated from its definition")
    return source
