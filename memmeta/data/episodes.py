"""Few-shot tasks drawn from a split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from memmeta.data.sources import Images
from memmeta.errors import InputError


@dataclass(frozen=True)
class Split:
    """The images of one split, sorted by class."""

    images: Images
    """uint8 [N, H, W, C], memory-mapped and read-only."""
    offsets: np.ndarray[Any, np.dtype[np.int64]]
    """int64 [classes + 1]: class c is images[offsets[c]:offsets[c + 1]]."""
    class_names: tuple[str, ...]
    """Sorted."""
    originals: NDArray[np.int64] | None = None
    """int64 [N]: for each image the first equal image of its class, usually itself. None where no
    class has equal images."""


class Episodes(NamedTuple):
    """A batch of B tasks. Labels are 0..ways-1, and images lie in the order of their labels.

    In regression there are no classes: ways is 1, and labels are the numbers to predict.
    """

    support: torch.Tensor
    """[B, ways * shots, ...]: images are uint8 [H, W, C] each, points float32 [1]."""
    support_labels: torch.Tensor
    """[B, ways * shots]: int64, in regression float32."""
    query: torch.Tensor
    """[B, ways * queries, ...], as support."""
    query_labels: torch.Tensor
    """[B, ways * queries], as support_labels."""

    @property
    def task_size(self) -> int:
        """Examples of a task, support and query."""
        return self.support.shape[1] + self.query.shape[1]


def sample_episodes(
    split: Split,
    *,
    ways: int,
    shots: int,
    queries: int,
    seed: int,
    indices: Sequence[int],
    rotations: bool = False,
) -> Episodes:
    """The tasks with the given indices.

    Task i depends on all arguments but `indices`, and on i alone: not on the tasks sampled with
    it or before it. No image is in both the support and the query set of a task, and no image of
    one set is equal to an image of its class in the other.

    Args:
        split: where to draw from.
        ways: classes a task.
        shots: support images a class.
        queries: query images a class.
        seed: not negative; another seed gives other tasks.
        indices: B indices, not negative.
        rotations: take each class turned by a quarter, a half and three quarters of a turn as
            three more classes. Images must be square.

    Raises:
        InputError: the split has fewer than `ways` classes, or a class fewer than
            `shots` + `queries` images, or too many of them are equal.
    """
    sizes = np.diff(split.offsets)
    each = shots + queries
    classes = len(sizes) * (4 if rotations else 1)
    if classes < ways:
        raise InputError(f"{ways} ways, but the split has {classes} classes")
    if sizes.min() < each:
        name = split.class_names[sizes.argmin()]
        raise InputError(
            f"{shots} shots and {queries} queries are {each} images a class, "
            f"but class {name} has {sizes.min()}"
        )
    rows = np.empty((len(indices), ways, each), dtype=np.int64)
    turns = np.empty((len(indices), ways), dtype=np.int64)
    for task, index in enumerate(indices):
        rng = np.random.default_rng([seed, index])
        turns[task], chosen = np.divmod(rng.choice(classes, ways, replace=False), len(sizes))
        for way, c in enumerate(chosen):
            rows[task, way] = split.offsets[c] + rng.choice(sizes[c], each, replace=False)
    for task, way in np.argwhere(_equal_across(split, rows, shots)):
        entropy = [seed, indices[task], _AGAIN, int(way)]
        rows[task, way] = _drawn_again(
            split, rows[task, way], shots, np.random.default_rng(entropy)
        )
    labels = torch.arange(ways)
    return Episodes(
        _images(split.images, rows[..., :shots], turns),
        labels.repeat_interleave(shots).repeat(len(rows), 1),
        _images(split.images, rows[..., shots:], turns),
        labels.repeat_interleave(queries).repeat(len(rows), 1),
    )


_AGAIN = 2
"""Gives the second draw other random numbers than the first one and `augment` have."""

_TRIES = 1000
"""Draws of one class before it is refused for a lack of different images."""


def _equal_across(split: Split, rows: NDArray[np.int64], shots: int) -> NDArray[np.bool_]:
    """Whether support and query of a class have an equal image: bool [...].

    Args:
        split: where the rows are from.
        rows: int64 [..., shots + queries], the support set first.
        shots: the number of rows in the support set.
    """
    if split.originals is None:
        return np.zeros(rows.shape[:-1], bool)
    originals = split.originals[rows]
    support, query = originals[..., :shots, None], originals[..., None, shots:]
    shared: NDArray[np.bool_] = (support == query).any((-2, -1))
    return shared


def _drawn_again(
    split: Split, rows: NDArray[np.int64], shots: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw rows of the same class until support and query have no equal image.

    This makes all allowed draws equally likely.
    """
    c = int(np.searchsorted(split.offsets, rows[0], side="right")) - 1
    begin, size = split.offsets[c], split.offsets[c + 1] - split.offsets[c]
    for _ in range(_TRIES):
        rows = begin + rng.choice(size, len(rows), replace=False)
        if not _equal_across(split, rows, shots):
            return rows
    assert split.originals is not None
    different = len(np.unique(split.originals[begin : begin + size]))
    raise InputError(
        f"{shots} shots and {len(rows) - shots} queries: class {split.class_names[c]} has {size} "
        f"images, {different} of them different: too few for sets without equal images"
    )


def _images(stored: Images, rows: NDArray[np.int64], turns: NDArray[np.int64]) -> torch.Tensor:
    """Images of a batch of tasks, uint8 [B, ways * n, H, W, C].

    Args:
        stored: uint8 [N, H, W, C].
        rows: which of them, [B, ways, n].
        turns: by how many quarters of a turn, anticlockwise, [B, ways].
    """
    images = np.asarray(stored)[rows]
    for turn in (1, 2, 3):
        turned = turns == turn
        if turned.any():
            images[turned] = np.rot90(images[turned], turn, axes=(-3, -2))
    return torch.from_numpy(images).flatten(1, 2)


def to_float(
    images: torch.Tensor, mean: Sequence[float], std: Sequence[float], white: float | None = None
) -> torch.Tensor:
    """Normalise images for a network, on the device they are on.

    Args:
        images: [..., H, W, C], uint8, or floats from 0 to `white`. Never changed.
        mean: C values on the 0-255 scale.
        std: C values on the 0-255 scale.
        white: the value of white in floats, such as 1 or 255; required for floats only.

    Returns:
        float32 [..., C, H, W], (images - mean) / std. It is a permuted view, so that a batch of
        images is channels_last in memory.

    Raises:
        InputError: images have another type, or are floats without `white` or beyond it.
    """
    shift = torch.tensor(mean, dtype=torch.float32, device=images.device)
    scale = torch.tensor(std, dtype=torch.float32, device=images.device)
    if images.dtype == torch.uint8 and white is None:
        return images.float().sub_(shift).div_(scale).movedim(-1, -3)
    if not images.is_floating_point() or white is None:
        raise InputError(
            f"images of {images.dtype}{'' if white is None else f' with white {white}'}: uint8 is "
            "accepted, or floats with the value of white"
        )
    if not ((images >= 0) & (images <= white)).all():
        raise InputError(f"images of {images.dtype}: values from 0 to {white} are accepted")
    return images.float().mul(255 / white).sub_(shift).div_(scale).movedim(-1, -3)
