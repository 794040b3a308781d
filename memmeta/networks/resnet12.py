"""ResNet-12, the standard residual backbone in few-shot learning."""

import torch.nn.functional as F
from torch import Tensor, nn

from memmeta.networks.norms import convolution, make_norm


def resnet12(input_shape: tuple[int, ...], filters: int, norm: str) -> nn.Sequential:
    """Four residual blocks and a global mean, without DropBlock.

    The widths have the ratios 64-160-320-640 of MetaOptNet (Lee et al., *Meta-Learning with
    Differentiable Convex Optimization*, 2019). With `filters` = 64 and three channels there are
    12,424,320 parameters. Maps [n, channels, height, width] to [n, 10 * filters].
    """
    widths = [filters, filters * 5 // 2, filters * 5, filters * 10]
    inputs = [input_shape[0], *widths]
    blocks = [_ResidualBlock(i, o, norm) for i, o in zip(inputs, widths, strict=False)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class _ResidualBlock(nn.Module):
    """Three 3x3 convolutions with a 1x1 shortcut, 2x2 max-pool, leaky ReLU."""

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
        # Pooling last would give the same result, since both are monotone.
        return F.leaky_relu(F.max_pool2d(total, 2), 0.1)
