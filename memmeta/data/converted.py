"""Images of one data set as a model takes them that was trained on another one."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from memmeta.data.dataset import Dataset, SplitName
from memmeta.data.episodes import Episodes
from memmeta.data.images import as_stored
from memmeta.data.inputs import Inputs
from memmeta.data.sources import TaskShape
from memmeta.errors import InputError


def converted(dataset: Dataset, target: Inputs | Dataset) -> "Converted":
    """A data set of images, with the size, channels and normalisation of a model.

    Args:
        dataset: the images.
        target: the inputs of the model, or the data set that it was trained on.

    Raises:
        InputError: one of them has points instead of images.

    Examples:
        >>> from memmeta.data import load_dataset
        >>> from memmeta.data.sources import TaskShape
        >>> colour = Inputs(input_shape=(3, 32, 32), mean=(0, 0, 0), std=(1, 1, 1))
        >>> glyphs = converted(load_dataset("glyphs", root="data"), colour)
        >>> tasks = glyphs.episodes("test", TaskShape(5, 1, 3), seed=0, indices=[0, 1])
        >>> tasks.query.shape
        torch.Size([2, 15, 32, 32, 3])
    """
    if len(dataset.input_shape) != 3:
        raise InputError(f"{dataset.name} has points, and only data sets of images are converted")
    if len(target.input_shape) != 3:
        raise InputError(f"{dataset.name} has images, and the model takes points")
    return Converted(dataset, target)


@dataclass(frozen=True)
class Converted:
    """A `Dataset` of the tasks of another one, with converted images.

    Rotated classes are not counted: they belong to the training data of the model.
    """

    dataset: Dataset
    target: Inputs | Dataset

    @property
    def name(self) -> str:
        """The name of the data set whose images are converted."""
        return self.dataset.name

    @property
    def digest(self) -> str:
        """The digest of the data set whose images are converted."""
        return self.dataset.digest

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the model."""
        return self.target.input_shape

    @property
    def inputs(self) -> Inputs | None:
        """See `Dataset.inputs`."""
        return self.target if isinstance(self.target, Inputs) else self.target.inputs

    def episodes(
        self,
        split: SplitName,
        shape: TaskShape,
        *,
        seed: int,
        indices: Sequence[int],
    ) -> Episodes:
        """See `Dataset.episodes`. Images are converted as those of `Run.adapt`."""
        upright = shape._replace(rotations=False)
        episodes = self.dataset.episodes(split, upright, seed=seed, indices=indices)
        if self.dataset.input_shape == self.input_shape or not indices:
            return episodes
        return episodes._replace(
            support=self._convert(episodes.support), query=self._convert(episodes.query)
        )

    def to_input(self, stored: Tensor) -> Tensor:
        """See `Dataset.to_input`. The normalisation is that of the model."""
        return self.target.to_input(stored)

    def _convert(self, images: Tensor) -> Tensor:
        """Convert images [B, n, H, W, C]."""
        flat = as_stored(images.flatten(0, 1), self.input_shape, self.name)
        return flat.view(*images.shape[:2], *flat.shape[1:])
