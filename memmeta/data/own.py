"""Own images: data sets that `memmeta data prepare` wrote to the cache under a name of the user."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

from memmeta.data.cache_files import META
from memmeta.data.sources import ImageSource, NoDataError
from memmeta.errors import shortened

RECIPE = "recipe"
"""The entry of meta.json that says how own images were prepared. Other caches do not have it."""

CHANNELS = (1, 3)

_CACHE: ContextVar[Path | None] = ContextVar("cache", default=None)
"""The folder of all caches that the command in progress was given."""


class OwnShape(NamedTuple):
    """The shape of prepared images."""

    image_size: int
    """Height and width."""
    channels: int
    """1 or 3."""


@contextmanager
def looking_in(data_root: Path | None, cache: Path | None) -> Iterator[None]:
    """Look for prepared data sets in these folders during the block, when configs are read.

    Args:
        data_root: None: see `default_cache`.
        cache: the folder of all caches; None: `cache` in the data root.
    """
    folder = cache or (data_root / "cache" if data_root else None)
    token = _CACHE.set(folder)
    try:
        yield
    finally:
        _CACHE.reset(token)


def default_cache() -> Path:
    """The folder of all caches in which names in configs are looked up.

    `looking_in` sets it; otherwise the environment variables MEMMETA_CACHE and MEMMETA_DATA_ROOT
    do. The default is `data/cache`.
    """
    given = _CACHE.get() or os.environ.get("MEMMETA_CACHE")
    return Path(given or Path(os.environ.get("MEMMETA_DATA_ROOT") or "data") / "cache")


def names(cache: Path) -> list[str]:
    """The names of the prepared data sets in a folder of caches."""
    return sorted(path.parent.name for path in cache.glob(f"*/{META}") if _recorded(path))


def find_shape(name: str, cache: Path) -> OwnShape | None:
    """The shape of the images prepared under a name; None if there are none."""
    if not re.fullmatch(r"[\w-]+", name):
        return None
    return _recorded(cache / name / META)


def check_name(name: str) -> str:
    """Return `name` if own images may have it.

    Raises:
        ValueError: it contains other characters than letters, digits, _ and -.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"a name of letters, digits, _ and - is accepted, got {shortened(name)}")
    return name


def name_of(folder: Path) -> str:
    """The name of images that are used directly: that of their folder."""
    return re.sub(r"[^\w-]", "_", folder.resolve().stem) or "images"


def own_source(name: str, shape: OwnShape) -> ImageSource:
    """The data set of own images. It is loaded from the cache only.

    A mirror image may be of the same class, and a rotated class another one: users know.
    """
    return ImageSource(
        name,
        (shape.channels, shape.image_size, shape.image_size),
        partial(_not_prepared, name),
        mirror_keeps_class=True,
        rotation_makes_class=True,
    )


def _not_prepared(name: str, data_root: Path, split: str) -> NoReturn:
    del split
    raise NoDataError(
        f"{name}: not prepared here, or damaged (data root {data_root}); memmeta data prepare "
        f"{name} --folder FOLDER prepares the images of a folder, or copy its folder from another "
        "cache"
    )


def _recorded(path: Path) -> OwnShape | None:
    """The shape in a meta.json; None if it is not one of own images."""
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        height, width, channels = map(int, meta["image_shape"])
        is_own = isinstance(meta[RECIPE], dict) and height == width > 0 and channels in CHANNELS
    # Damaged JSON can raise many types of errors.
    except Exception:
        return None
    return OwnShape(height, channels) if is_own else None
