"""Backbones (theta): images, or numbers, to features."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memmeta.config import LearnerConfig
from memmeta.networks import fused

BLOCKS = 4
"""Conv4 and ResNet-12 are so many blocks, and what follows has no parameters."""

_MLP_WIDTH = 40


def conv4(channels: int, filters: int, norm: str) -> nn.Sequential:
    """Four blocks of 3x3 convolution, norm, ReLU and 2x2 max-pool; the field's standard network.

    Maps [n, channels, height, width] to [n, filters * (height // 16) * (width // 16)].
    """
    inputs = (channels, filters, filters, filters)
    return nn.Sequential(*(_ConvBlock(i, filters, norm) for i in inputs), nn.Flatten())


class _ConvBlock(nn.Sequential):
    """One of Conv4's: as layers of PyTorch here, and otherwise in `memmeta.networks.fused`."""

    def __init__(self, inputs: int, filters: int, norm: str) -> None:
        # ReLU after the pooling: the same numbers, as both are monotone, on a quarter of the
        # elements.
        super().__init__(
            _conv(inputs, filters, 3), _norm(norm, filters), nn.MaxPool2d(2), nn.ReLU(inplace=True)
        )


def resnet12(channels: int, filters: int, norm: str) -> nn.Sequential:
    """Four residual blocks and a global mean: the few-shot literature's ResNet-12.

    The widths are in the proportion 64-160-320-640 of MetaOptNet (Lee et al., 2019), which is
    `filters` = 64 with 12,424,320 parameters for three channels; DropBlock is left out. Maps
    [n, channels, height, width] to [n, 10 * filters].
    """
    widths = [filters, filters * 5 // 2, filters * 5, filters * 10]
    inputs = [channels, *widths]
    blocks = [_ResidualBlock(i, o, norm) for i, o in zip(inputs, widths, strict=False)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class _ResidualBlock(nn.Module):
    """Three 3x3 convolutions beside a 1x1 one, leaky ReLU, 2x2 max-pool."""

    def __init__(self, inputs: int, outputs: int, norm: str) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            _conv(inputs, outputs, 3),
            _norm(norm, outputs),
            nn.LeakyReLU(0.1, inplace=True),
            _conv(outputs, outputs, 3),
            _norm(norm, outputs),
            nn.LeakyReLU(0.1, inplace=True),
            _conv(outputs, outputs, 3),
            _norm(norm, outputs),
        )
        self.shortcut = nn.Sequential(_conv(inputs, outputs, 1), _norm(norm, outputs))

    def forward(self, images: Tensor) -> Tensor:
        total = self.convolutions(images) + self.shortcut(images)
        # The same numbers as pooling last: see `conv4`.
        return F.leaky_relu(F.max_pool2d(total, 2), 0.1)


def mlp(inputs: int) -> nn.Sequential:
    """Two hidden layers of 40 with ReLU, as MAML's sinusoid regression: [n, inputs] to [n, 40]."""
    return nn.Sequential(
        nn.Linear(inputs, _MLP_WIDTH), nn.ReLU(), nn.Linear(_MLP_WIDTH, _MLP_WIDTH), nn.ReLU()
    )


def _conv(inputs: int, outputs: int, size: int) -> nn.Module:
    # A norm follows, which would cancel a bias.
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)


def _norm(norm: str, channels: int) -> nn.Module:
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


def build(config: LearnerConfig, input_shape: tuple[int, ...]) -> nn.Sequential:
    """The network of `config` for images (channels, height, width), or for numbers (inputs,)."""
    if config.backbone == "mlp":
        return mlp(math.prod(input_shape))
    make = {"conv4": conv4, "resnet12": resnet12}[config.backbone]
    return make(input_shape[0], config.filters, config.norm)


def features(backbone: nn.Module, images: Tensor) -> Tensor:
    """What `backbone` makes of images [tasks, n, ...]: [tasks, n, ...].

    With BatchNorm each task's set is normalised on its own, as if it were alone; other norms
    treat each image on its own and take all tasks in one batch. Gradients flow to the backbone's
    parameters; Conv4's are not differentiable again.
    """
    blocks = [module for module in backbone.children() if isinstance(module, _ConvBlock)]
    if blocks:
        maps = fused.features(blocks, images)
        return maps.flatten(2) if len(blocks) == BLOCKS else maps
    if mixes_images(backbone):
        return torch.stack([backbone(task) for task in images])
    flat: Tensor = backbone(images.flatten(0, 1))
    return flat.reshape(*images.shape[:2], *flat.shape[1:])


def mixes_images(backbone: nn.Module) -> bool:
    """Whether the features of an image depend on those beside it."""
    return any(
        isinstance(module, nn.BatchNorm2d) and not isinstance(module, FrozenBatchNorm2d)
        for module in backbone.modules()
    )
