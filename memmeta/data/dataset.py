"""What a learner asks of a data set, and the data sets made of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from torch import Tensor

from memmeta.data.episodes import Episodes, Split, sample_episodes, to_float
from memmeta.data.sources import TaskShape
from memmeta.errors import InputError

SplitName = Literal["train", "val", "test"]


class Dataset(Protocol):
    """A source of tasks, in three splits."""

    @property
    def name(self) -> str:
        """As DataConfig has it."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input, as a backbone gets it: (C, H, W) for images."""

    @property
    def digest(self) -> str:
        """Hex SHA-256 of all that the tasks are drawn from."""

    def episodes(
        self,
        split: SplitName,
        shape: TaskShape,
        *,
        seed: int,
        indices: Sequence[int],
    ) -> Episodes:
        """The tasks of a split with the given indices, as they are stored: see `to_input`.

        Task i depends on the data, the arguments but `indices`, and i alone: not on the tasks
        drawn with it or before it.

        Args:
            split: which classes, or which numbers, to draw from.
            shape: the number of classes and examples.
            seed: not negative; another seed gives other tasks.
            indices: B indices, not negative. Even with none the split has to suffice.

        Raises:
            InputError: the split is too small for tasks of this shape. The message names it.
        """

    def to_input(self, stored: Tensor) -> Tensor:
        """Support or query inputs of episodes, [B, n, ...], as a backbone gets them.

        Returns:
            float32 [B, n, *input_shape], on the device of `stored`.
        """


def check_episodes(dataset: Dataset, training: TaskShape, evaluation: TaskShape) -> None:
    """Make sure that every split has enough data for its tasks.

    Args:
        dataset: the data.
        training: the shape of tasks of split train.
        evaluation: the shape of tasks of the other splits.

    Raises:
        InputError: as `Dataset.episodes`.
    """
    for split in get_args(SplitName):
        shape = training if split == "train" else evaluation
        dataset.episodes(split, shape, seed=0, indices=[])


@dataclass(frozen=True)
class ImageDataset:
    """Three splits of images with disjoint classes."""

    name: str
    train: Split
    val: Split
    test: Split
    mean: tuple[float, ...]
    """Per channel, on the 0-255 scale."""
    std: tuple[float, ...]
    """Per channel, on the 0-255 scale."""
    digest: str
    """Hex SHA-256 of class names and images: the same whichever source they were read from."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        height, width, channels = self.train.images.shape[1:]
        return channels, height, width

    def episodes(
        self,
        split: SplitName,
        shape: TaskShape,
        *,
        seed: int,
        indices: Sequence[int],
    ) -> Episodes:
        """As `Dataset.episodes`: uint8 images."""
        try:
            return sample_episodes(
                getattr(self, split), **shape._asdict(), seed=seed, indices=indices
            )
        except InputError as error:
            raise InputError(f"{self.name}, split {split}: {error.message}") from None

    def to_input(self, stored: Tensor) -> Tensor:
        """As `Dataset.to_input`: uint8 images normalised, channels_last in memory."""
        return to_float(stored, self.mean, self.std)
