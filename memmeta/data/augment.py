"""Data augmentation of training tasks: random crops and horizontal flips."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from memmeta.data.episodes import Episodes

_AUGMENTATION = 1
"""Part of the seed, so that these random numbers differ from those that sample the tasks."""


def augment(episodes: Episodes, seed: int, indices: Sequence[int]) -> Episodes:
    """Pad each image with black, crop it at a random position and flip it with probability 1/2.

    The padding on each side is an eighth of the height: 4 pixels for 32x32 images, as is usual. The
    crops and flips of a task depend only on the seed and the index of the task.

    Args:
        episodes: B tasks of uint8 images [H, W, C], on any device.
        seed: not negative.
        indices: indices of the B tasks.

    Returns:
        The same tasks with new images of the same shape and type.
    """
    support = episodes.support.shape[1]
    padding = episodes.support.shape[2] // 8
    draws = np.stack([_draw(seed, index, episodes.task_size, padding) for index in indices])
    crops = torch.from_numpy(draws).to(episodes.support.device)
    return episodes._replace(
        support=_cropped(episodes.support, crops[:, :support], padding),
        query=_cropped(episodes.query, crops[:, support:], padding),
    )


def _draw(seed: int, index: int, images: int, padding: int) -> np.ndarray[tuple[int, ...], Any]:
    """First row, first column and flip (0 or 1) of each image: int64 [images, 3]."""
    rng = np.random.default_rng([seed, index, _AUGMENTATION])
    return rng.integers(0, [2 * padding + 1, 2 * padding + 1, 2], (images, 3))


def _cropped(images: Tensor, crops: Tensor, padding: int) -> Tensor:
    """Crop and flip images [B, n, H, W, C] according to `crops` [B, n, 3], see `_draw`."""
    height, width = images.shape[2:4]
    flat = F.pad(images.flatten(0, 1), (0, 0, padding, padding, padding, padding))
    top, left, flip = crops.flatten(0, 1).unbind(1)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    columns = torch.where(flip[:, None] == 1, columns.flip(1), columns)
    image = torch.arange(len(flat), device=images.device)[:, None, None]
    return flat[image, rows[:, :, None], columns[:, None, :]].view_as(images)
