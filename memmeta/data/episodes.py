"""Few-shot tasks, sampled from a split of a data set.

Examples:
    >>> import numpy as np
    >>> from memmeta.data.episodes import Split, sample_episodes
    >>> images = np.zeros((60, 28, 28, 1), np.uint8)  # 6 classes of 10 images
    >>> split = Split(images, np.arange(0, 61, 10), tuple("abcdef"))
    >>> batch = sample_episodes(split, ways=5, shots=1, queries=3, seed=0, indices=[0, 1])
    >>> batch.support.shape
    torch.Size([2, 5, 28, 28, 1])
    >>> batch.query.shape
    torch.Size([2, 15, 28, 28, 1])
    >>> batch.support_labels
    tensor([[0, 1, 2, 3, 4],
            [0, 1, 2, 3, 4]])
"""

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
    """int64 [N]: index of the first equal image in the same class, usually the image itself. None
    if no class contains equal images."""


class Episodes(NamedTuple):
    """A batch of B tasks. Labels are 0..ways-1, and images are in the order of their labels.

    Regression tasks have no classes: ways is 1, and labels are the values to predict.
    """

    support: torch.Tensor
    """[B, ways * shots, ...]: uint8 images [H, W, C] or float32 points [1]."""
    support_labels: torch.Tensor
    """[B, ways * shots]: int64, or float32 for regression."""
    query: torch.Tensor
    """[B, ways * queries, ...], like `support`."""
    query_labels: torch.Tensor
    """[B, ways * queries], like `support_labels`."""

    @property
    def task_size(self) -> int:
        """Number of examples per task, support and query together."""
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
    """Sample the tasks with the given indices.

    Task i depends only on i and the arguments other than `indices`, not on the tasks sampled with
    it or before it. The support and query sets of a task have no image in common. Images of the
    same class that are equal never appear in both sets either.

    Args:
        split: the split to sample from.
        ways: classes per task.
        shots: support images per class.
        queries: query images per class.
        seed: not negative; another seed gives other tasks.
        indices: B indices, not negative.
        rotations: count each class rotated by 90, 180 and 270 degrees as three further classes.
            Images must be square.

    Raises:
        InputError: the split has fewer than `ways` classes, a class has fewer than
            `shots` + `queries` images, or too many images of a class are equal.
    """
    sizes = np.diff(split.offsets)
    per_class = shots + queries
    classes = len(sizes) * (4 if rotations else 1)
    if classes < ways:
        raise InputError(f"{ways} ways, but the split has {classes} classes")
    if sizes.min() < per_class:
        name = split.class_names[sizes.argmin()]
        raise InputError(
            f"{shots} shots and {queries} queries are {per_class} images a class, "
            f"but class {name} has {sizes.min()}"
        )
    rows = np.empty((len(indices), ways, per_class), dtype=np.int64)
    turns = np.empty((len(indices), ways), dtype=np.int64)
    for task, index in enumerate(indices):
        rng = np.random.default_rng([seed, index])
        turns[task], chosen = np.divmod(rng.choice(classes, ways, replace=False), len(sizes))
        for way, c in enumerate(chosen):
            rows[task, way] = split.offsets[c] + rng.choice(sizes[c], per_class, replace=False)
    for task, way in np.argwhere(_equal_across(split, rows, shots)):
        entropy = [seed, indices[task], _RESAMPLING, int(way)]
        rows[task, way] = _resampled(split, rows[task, way], shots, np.random.default_rng(entropy))
    labels = torch.arange(ways)
    return Episodes(
        _images(split.images, rows[..., :shots], turns),
        labels.repeat_interleave(shots).repeat(len(rows), 1),
        _images(split.images, rows[..., shots:], turns),
        labels.repeat_interleave(queries).repeat(len(rows), 1),
    )


_RESAMPLING = 2
"""Part of the seed, so that these random numbers differ from the first draw and from `augment`."""

_TRIES = 1000
"""Draws from one class before an error reports that it has too few different images."""


def _equal_across(split: Split, rows: NDArray[np.int64], shots: int) -> NDArray[np.bool_]:
    """Whether support and query images of a class contain equal images: bool [...].

    Args:
        split: the split that contains the rows.
        rows: int64 [..., shots + queries], the support set first.
        shots: the number of rows in the support set.
    """
    if split.originals is None:
        return np.zeros(rows.shape[:-1], bool)
    originals = split.originals[rows]
    support, query = originals[..., :shots, None], originals[..., None, shots:]
    shared: NDArray[np.bool_] = (support == query).any((-2, -1))
    return shared


def _resampled(
    split: Split, rows: NDArray[np.int64], shots: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw rows of the same class until support and query contain no equal images.

    Rejection sampling makes all allowed draws equally likely.
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
        f"images, {different} of them different, which is too few for a support and a query set "
        "without equal images"
    )


def _images(stored: Images, rows: NDArray[np.int64], turns: NDArray[np.int64]) -> torch.Tensor:
    """Images of a batch of tasks, uint8 [B, ways * n, H, W, C].

    Args:
        stored: uint8 [N, H, W, C].
        rows: indices of images, [B, ways, n].
        turns: anticlockwise rotations of the classes, in units of 90 degrees, [B, ways].
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
    """Convert images to normalised network input, on the same device.

    Args:
        images: [..., H, W, C], uint8, or floats from 0 to `white`. Not modified.
        mean: C values on the 0-255 scale.
        std: C values on the 0-255 scale.
        white: the value of white in float images, such as 1 or 255. Required for floats, and not
            allowed for uint8.

    Returns:
        float32 [..., C, H, W], (images - mean) / std. It is a permuted view, so a batch of images
        is channels_last in memory.

    Raises:
        InputError: unsupported dtype, or float images without `white` or out of range.
    """
    shift = torch.tensor(mean, dtype=torch.float32, device=images.device)
    scale = torch.tensor(std, dtype=torch.float32, device=images.device)
    if images.dtype == torch.uint8 and white is None:
        return images.float().sub_(shift).div_(scale).movedim(-1, -3)
    if not images.is_floating_point() or white is None:
        raise InputError(
            f"images of {images.dtype}{'' if white is None else f' with white {white}'}: expected "
            "uint8, or floats with the value of white"
        )
    if not ((images >= 0) & (images <= white)).all():
        raise InputError(f"images of {images.dtype}: expected values from 0 to {white}")
    return images.float().mul(255 / white).sub_(shift).div_(scale).movedim(-1, -3)
