"""The interface of a loaded data set, and its implementation for images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol, get_args, runtime_checkable

from pydantic import PlainValidator
from torch import Tensor

from memmeta.data.episodes import Episodes, Split, sample_episodes, to_float
from memmeta.data.features import FeatureDataset, FeatureMaker
from memmeta.data.inputs import Inputs
from memmeta.data.sources import TaskShape
from memmeta.errors import InputError

SplitName = Literal["train", "val", "test"]


@runtime_checkable
class Dataset(Protocol):
    """A data set from which tasks are sampled, with three splits."""

    @property
    def name(self) -> str:
        """The name in configs."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one network input: (C, H, W) for images."""

    @property
    def inputs(self) -> Inputs | None:
        """How new examples become network input, for use without the data set.

        None if only the data set itself can convert them.
        """

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the data from which tasks are sampled."""

    def episodes(
        self,
        split: SplitName,
        shape: TaskShape,
        *,
        seed: int,
        indices: Sequence[int],
    ) -> Episodes:
        """Sample the tasks of a split with the given indices.

        Task i depends only on the data, the other arguments and i, not on the tasks sampled with it
        or before it. Examples have the stored form; `to_input` converts them.

        Args:
            split: the split to sample from.
            shape: the number of classes and examples.
            seed: not negative; another seed gives other tasks.
            indices: B indices, not negative. The size of the split is checked even if B is 0.

        Raises:
            InputError: the split is too small for tasks of this shape. The message names the split.
        """

    def to_input(self, stored: Tensor) -> Tensor:
        """Convert the support or query examples of episodes, [B, n, ...], to network input.

        Returns:
            float32 [B, n, *input_shape], on the device of `stored`.
        """


class Renamed:
    """A data set under the name that configs have for it, such as an import path."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.name = name
        self.input_shape = dataset.input_shape
        self.inputs = dataset.inputs
        self.digest = dataset.digest
        self.episodes = dataset.episodes
        self.to_input = dataset.to_input


def _as_dataset(value: object) -> Dataset:
    if not isinstance(value, Dataset):
        raise ValueError("a data set is expected, which load_dataset(name) loads")
    return value


AnyDataset = Annotated[Dataset, PlainValidator(_as_dataset)]
"""A data set as an argument (see `memmeta.settings.arguments`)."""


def check_episodes(dataset: Dataset, training: TaskShape, evaluation: TaskShape) -> None:
    """Check that every split has enough data for its tasks.

    Args:
        dataset: the data.
        training: the shape of tasks of split train.
        evaluation: the shape of tasks of the other splits.

    Raises:
        InputError: a split is too small.
    """
    for split in get_args(SplitName):
        shape = training if split == "train" else evaluation
        dataset.episodes(split, shape, seed=0, indices=[])


@dataclass(frozen=True)
class ImageDataset:
    """A `Dataset` of images, whose splits have disjoint classes."""

    name: str
    train: Split = field(repr=False)
    val: Split = field(repr=False)
    test: Split = field(repr=False)
    mean: tuple[float, ...]
    """Per channel, on the 0-255 scale."""
    std: tuple[float, ...]
    """Per channel, on the 0-255 scale."""
    digest: str
    """Hex SHA-256 of class names and images, independent of the format they were read from."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image as network input, (C, H, W)."""
        height, width, channels = self.train.images.shape[1:]
        return channels, height, width

    @property
    def inputs(self) -> Inputs:
        """See `Dataset.inputs`."""
        return Inputs(input_shape=self.input_shape, mean=self.mean, std=self.std)

    def episodes(
        self,
        split: SplitName,
        shape: TaskShape,
        *,
        seed: int,
        indices: Sequence[int],
    ) -> Episodes:
        """See `Dataset.episodes`. Examples are uint8 images [H, W, C]."""
        try:
            return sample_episodes(
                getattr(self, split), **shape._asdict(), seed=seed, indices=indices
            )
        except InputError as error:
            raise InputError(f"{self.name}, split {split}: {error.message}") from None

    def to_input(self, stored: Tensor) -> Tensor:
        """See `Dataset.to_input`. Images are normalised, and channels_last in memory."""
        return to_float(stored, self.mean, self.std)

    def featured(self, maker: FeatureMaker) -> FeatureDataset:
        """The same tasks, with the features of a frozen backbone instead of images."""
        return FeatureDataset(self, maker)
