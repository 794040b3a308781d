"""ResNet-12: the few-shot literature's residual network."""

import torch.nn.functional as F
from torch import Tensor, nn

from memmeta.networks.norms import convolution, make_norm


def resnet12(input_shape: tuple[int, ...], filters: int, norm: str) -> nn.Sequential:
    """Four residual blocks and a global mean.

    The widths are in the proportion 64-160-320-640 of MetaOptNet (Lee et al., 2019). With
    `filters` = 64 and three channels these are 12,424,320 parameters. There is no DropBlock. Maps
    [n, channels, height, width] to [n, 10 * filters].
    """
    widths = [filters, filters * 5 // 2, filters * 5, filters * 10]
    inputs = [input_shape[0], *widths]
    blocks = [_ResidualBlock(i, o, norm) for i, o in zip(inputs, widths, strict=False)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class _ResidualBlock(nn.Module):
    """Three 3x3 convolutions beside a 1x1 one, leaky ReLU, 2x2 max-pool."""

    def __init__(self, inputs: int, outputs: int, norm: str) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            convolution(inputs, outputs, 3),
            make_norm(norm, outputs),
            nn.LeakyReLU(0.1, inplace=True),
            convolution(outputs, outputs, 3),
            make_norm(norm, outputs),
            nn.LeakyReLU(0.1, inplace=True),
            convolution(outputs, outputs, 3),
            make_norm(norm, outputs),
        )
        self.shortcut = nn.Sequential(convolution(inputs, outputs, 1), make_norm(norm, outputs))

    def forward(self, images: Tensor) -> Tensor:
        total = self.convolutions(images) + self.shortcut(images)
        # The same numbers as pooling last, since both are monotone.
        return F.leaky_relu(F.max_pool2d(total, 2), 0.1)
