"""Backbones (theta): images to feature vectors."""

import math

import torch
from torch import Tensor, nn

from memmeta.config import LearnerConfig


class Conv4(nn.Sequential):
    """Four blocks of 3x3 convolution, norm, ReLU and 2x2 max-pool; the field's standard network.

    Maps [n, channels, height, width] to [n, filters * (height // 16) * (width // 16)].
    """

    def __init__(self, channels: int, filters: int, norm: str) -> None:
        blocks: list[nn.Module] = []
        for inputs in (channels, filters, filters, filters):
            blocks += [
                # A norm follows, which would cancel a bias.
                nn.Conv2d(inputs, filters, 3, padding=1, bias=False),
                _norm(norm, filters),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
        super().__init__(*blocks, nn.Flatten())


def _norm(norm: str, channels: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(channels, track_running_stats=False)
    return nn.GroupNorm(math.gcd(channels, 8), channels)


def build(config: LearnerConfig, image_shape: tuple[int, int, int]) -> nn.Module:
    """The backbone of `config` for images of `image_shape` (channels, height, width)."""
    return Conv4(image_shape[0], config.filters, config.norm)


def features(backbone: nn.Module, images: Tensor) -> Tensor:
    """Features [tasks, n, d] of images [tasks, n, channels, height, width].

    With BatchNorm each task's set is normalised on its own, as if it were alone; other norms
    treat each image on its own and take all tasks in one batch.
    """
    if any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules()):
        return torch.stack([backbone(task) for task in images])
    flat: Tensor = backbone(images.flatten(0, 1))
    return flat.reshape(*images.shape[:2], -1)
