"""The features that a frozen backbone gives for the images of a data set, computed once."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from memmeta.data.episodes import Episodes, Split, sample_episodes
from memmeta.data.sources import TaskShape
from memmeta.errors import InputError
from memmeta.progress import NoProgress, Progress
from memmeta.system import files

if TYPE_CHECKING:
    from memmeta.data.dataset import Dataset, ImageDataset, SplitName

Features = NDArray[np.float32]
"""float32 [n, d]."""


class FeatureMaker(Protocol):
    """A frozen backbone."""

    at_once: int
    """Images that pass through the backbone together."""

    def identity(self) -> str:
        """Hex digits that differ if the features of images do."""

    def features(self, images: Tensor) -> Tensor:
        """Features of stored images [n, ...]: float32 [n, d], on the CPU."""


@runtime_checkable
class HasFeatures(Protocol):
    """A data set whose tasks can have features instead of images."""

    def featured(self, maker: FeatureMaker) -> "Dataset":
        """The same tasks, with features [d] instead of images."""


class FeatureDataset:
    """A `Dataset` of the features of images. Those of a split are computed when it is first used.

    They are kept beside the cache of the images, so that other runs read them. The features of
    images in memory are kept in memory.
    """

    inputs = None

    def __init__(self, images: "ImageDataset", maker: FeatureMaker) -> None:
        self.name = images.name
        self.digest = images.digest
        self._images = images
        self._maker = maker
        self._splits: dict[str, Split] = {}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the features of an image, (d,)."""
        return self._split("val").images.shape[1:]

    def episodes(
        self, split: "SplitName", shape: TaskShape, *, seed: int, indices: Sequence[int]
    ) -> Episodes:
        """See `Dataset.episodes`. Examples are features [d]."""
        return sample_episodes(self._split(split), **shape._asdict(), seed=seed, indices=indices)

    def to_input(self, stored: Tensor) -> Tensor:
        """See `Dataset.to_input`. Features stay as they are."""
        return stored

    def prepare(self, splits: Sequence["SplitName"], progress: Progress) -> None:
        """Compute the features of splits, with a progress bar, unless they are known.

        Raises:
            InputError: the features cannot be written.
        """
        for split in splits:
            self._split(split, progress)

    def _split(self, name: "SplitName", progress: Progress | None = None) -> Split:
        if name not in self._splits:
            split: Split = getattr(self._images, name)
            features: Any = self._features(name, split, progress or NoProgress())
            self._splits[name] = Split(features, split.offsets, split.class_names, split.originals)
        return self._splits[name]

    def _features(self, name: str, split: Split, progress: Progress) -> Features:
        """The features of a split: read, or computed and kept."""
        if self._folder is None:
            return np.concatenate([*self._batches(split, progress)])
        path = self._folder / f"{name}.npy"
        try:
            features = _read(path, len(split.images))
            if features is not None:
                return features
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(f".{name}.lock")):
                features = _read(path, len(split.images))
                if features is None:
                    _write(path, len(split.images), self._batches(split, progress))
                    features = _read(path, len(split.images))
        except OSError as error:
            raise InputError(
                f"{self._folder}: the features cannot be written ({error.strerror or error}); "
                "choose another folder with --cache or MEMMETA_CACHE"
            ) from None
        if features is None:
            raise InputError(f"{path}: was damaged after it was written; delete it and retry")
        return features

    @cached_property
    def _folder(self) -> Path | None:
        """The folder of these features, beside the cache of the images; None without a cache."""
        filename = getattr(self._images.train.images, "filename", None)
        if filename is None:
            return None
        cache = Path(filename).parent
        digests = f"{self._maker.identity()[:16]}-{self._images.digest[:16]}"
        return cache.with_name(f"{cache.name}.features") / digests

    def _batches(self, split: Split, progress: Progress) -> Iterator[Features]:
        """The features of a split, some images at a time."""
        count, step = len(split.images), self._maker.at_once
        progress.line(f"{self.name}: computing the features of {count} images, once")
        with progress.bar(-(-count // step), 0, "batches of images") as advance:
            for first in range(0, count, step):
                images = torch.from_numpy(np.array(split.images[first : first + step]))
                yield self._maker.features(images).numpy()
                advance()


def _read(path: Path, count: int) -> Features | None:
    """The features in a file, memory-mapped; None if they are missing or damaged."""
    with suppress(FileNotFoundError, ValueError):
        features: Features = np.load(path, mmap_mode="r", allow_pickle=False)
        if features.dtype == np.float32 and features.ndim == 2 and len(features) == count:
            return features
    return None


def _write(path: Path, count: int, batches: Iterator[Features]) -> None:
    """Write features with one batch in memory at a time.

    Raises:
        OSError: the file cannot be written.
    """
    with files.atomic_write(path) as out:
        for index, batch in enumerate(batches):
            if index == 0:
                header = {
                    "descr": "<f4",
                    "fortran_order": False,
                    "shape": (count, batch.shape[1]),
                }
                np.lib.format.write_array_header_1_0(out, header)
            out.write(np.ascontiguousarray(batch, dtype="<f4").data)
