"""Random crops and mirror images of the tasks to train on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from memmeta.data.episodes import Episodes

_AUGMENTATION = 1
"""Sets these draws apart from those of the tasks themselves."""


def augment(episodes: Episodes, seed: int, indices: Sequence[int]) -> Episodes:
    """Crop each image anew from one padded with black on all sides, and mirror every other one.

    The padding is an eighth of the height: 4 pixels of 32, the field's custom. What happens to the
    images of a task depends on the seed and the task's index alone.

    Args:
        episodes: B tasks of uint8 images [H, W, C], on any device.
        seed: not negative.
        indices: the tasks' own, B of them.
    """
    support = episodes.support.shape[1]
    padding = episodes.support.shape[2] // 8
    draws = np.stack([_draw(seed, index, episodes.task_size, padding) for index in indices])
    change = torch.from_numpy(draws).to(episodes.support.device)
    return episodes._replace(
        support=_changed(episodes.support, change[:, :support], padding),
        query=_changed(episodes.query, change[:, support:], padding),
    )


def _draw(seed: int, index: int, images: int, padding: int) -> np.ndarray[tuple[int, ...], Any]:
    """First row, first column and whether to mirror, of each image: int64 [images, 3]."""
    rng = np.random.default_rng([seed, index, _AUGMENTATION])
    return rng.integers(0, [2 * padding + 1, 2 * padding + 1, 2], (images, 3))


def _changed(images: Tensor, change: Tensor, padding: int) -> Tensor:
    """Images [B, n, H, W, C] cut out and mirrored as `change` [B, n, 3] says."""
    height, width = images.shape[2:4]
    flat = F.pad(images.flatten(0, 1), (0, 0, padding, padding, padding, padding))
    top, left, mirrored = change.flatten(0, 1).unbind(1)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    columns = torch.where(mirrored[:, None] == 1, columns.flip(1), columns)
    each = torch.arange(len(flat), device=images.device)[:, None, None]
    return flat[each, rows[:, :, None], columns[:, None, :]].view_as(images)
