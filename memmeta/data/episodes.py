"""Few-shot tasks drawn from a split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

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


def sample_episodes(
    split: Split, *, ways: int, shots: int, queries: int, seed: int, indices: Sequence[int]
) -> Episodes:
    """The tasks with the given indices.

    Task i depends on the split, ways, shots, queries, seed and i alone: not on the tasks sampled
    with it or before it. No image is in both the support and the query set of a task.

    Args:
        split: where to draw from.
        ways: classes a task.
        shots: support images a class.
        queries: query images a class.
        seed: not negative; another seed gives other tasks.
        indices: B indices, not negative.

    Raises:
        InputError: the split has fewer than `ways` classes, or a class fewer than
            `shots` + `queries` images.
    """
    sizes = np.diff(split.offsets)
    each = shots + queries
    if len(sizes) < ways:
        raise InputError(f"{ways} ways, but the split has {len(sizes)} classes")
    if sizes.min() < each:
        name = split.class_names[sizes.argmin()]
        raise InputError(
            f"{shots} shots and {queries} queries are {each} images a class, "
            f"but class {name} has {sizes.min()}"
        )
    rows = np.empty((len(indices), ways, each), dtype=np.int64)
    for row, index in zip(rows, indices, strict=True):
        rng = np.random.default_rng([seed, index])
        for way, chosen in enumerate(rng.choice(len(sizes), ways, replace=False)):
            row[way] = split.offsets[chosen] + rng.choice(sizes[chosen], each, replace=False)
    images = np.asarray(split.images)
    support = torch.from_numpy(images[rows[:, :, :shots].reshape(len(rows), ways * shots)])
    query = torch.from_numpy(images[rows[:, :, shots:].reshape(len(rows), ways * queries)])
    labels = torch.arange(ways)
    return Episodes(
        support,
        labels.repeat_interleave(shots).repeat(len(rows), 1),
        query,
        labels.repeat_interleave(queries).repeat(len(rows), 1),
    )


def to_float(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Normalise images for a network, on the device they are on.

    Args:
        images: uint8 [..., H, W, C].
        mean: C values on the 0-255 scale.
        std: C values on the 0-255 scale.

    Returns:
        float32 [..., C, H, W], (images - mean) / std. It is a permuted view, so that a batch of
        images is channels_last in memory.
    """
    shift = torch.tensor(mean, dtype=torch.float32, device=images.device)
    scale = torch.tensor(std, dtype=torch.float32, device=images.device)
    return images.float().sub_(shift).div_(scale).movedim(-1, -3)
