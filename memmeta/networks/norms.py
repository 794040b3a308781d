"""Convolutions and their norms."""

import math

import torch
from torch import Tensor, nn


def convolution(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    """A convolution that keeps height and width. The norm that follows would cancel a bias."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)


def make_norm(norm: str, channels: int) -> nn.Module:
    """The norm that `LearnerConfig.norm` names."""
    if norm == "batch":
        return nn.BatchNorm2d(channels, track_running_stats=False)
    if norm == "frozen":
        return FrozenBatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(channels, 8), channels)


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose mean and variance are those that `calibrate` set, and constants since.

    Scale and shift are learned. No image depends on another and no gradient passes through the
    statistics.
    """

    def __init__(self, channels: int) -> None:
        # The momentum of `calibrate`: its one batch counts in full.
        super().__init__(channels, momentum=1.0)
        self.eval()

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        """Stay frozen, whatever `mode` the network is put in."""
        del mode
        return super().train(False)


@torch.no_grad()
def calibrate(network: nn.Module, images: Tensor) -> None:
    """Set the statistics of every `FrozenBatchNorm2d` to those of `images`, layer after layer.

    Args:
        network: is left as it is if it has none.
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
    """Whether the features of an image depend on those beside it."""
    return any(
        isinstance(module, nn.BatchNorm2d) and not isinstance(module, FrozenBatchNorm2d)
        for module in backbone.modules()
    )
