"""Convolutions and normalisation layers."""

import math

import torch
from torch import Tensor, nn


def convolution(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    """A convolution that keeps height and width, without a bias: the next norm would cancel it.

    Args:
        inputs: input channels.
        outputs: output channels.
        size: height and width of the kernel, odd.
    """
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)


def make_norm(norm: str, channels: int) -> nn.Module:
    """Build the layer for a value of `LearnerConfig.norm`; GroupNorm has up to 8 groups."""
    if norm == "batch":
        return nn.BatchNorm2d(channels, track_running_stats=False)
    if norm == "frozen":
        return FrozenBatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(channels, 8), channels)


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm with a constant mean and variance, set once by `calibrate`.

    Scale and shift are learned. Images do not depend on each other, and no gradient passes through
    the statistics.
    """

    def __init__(self, channels: int) -> None:
        # Momentum 1: `calibrate` passes one batch, and its statistics replace the old ones.
        super().__init__(channels, momentum=1.0)
        self.eval()

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        """Stay in evaluation mode, whatever `mode` says."""
        del mode
        return super().train(False)


@torch.no_grad()
def calibrate(network: nn.Module, images: Tensor) -> None:
    """Set the statistics of every `FrozenBatchNorm2d` to those of its input for `images`.

    Args:
        network: unchanged if it has no such layer.
        images: [n, channels, height, width].
    """
    frozen = [module for module in network.modules() if isinstance(module, FrozenBatchNorm2d)]
    if frozen:
        for module in frozen:
            module.training = True
        network(images)
        for module in frozen:
            module.training = False


def mixes_images(backbone: nn.Module) -> bool:
    """Whether the features of an image depend on the other images of its batch.

    BatchNorm that evaluates with running statistics treats each image separately.
    """
    return any(
        module.training or module.running_mean is None
        for module in backbone.modules()
        if isinstance(module, nn.BatchNorm2d)
    )
