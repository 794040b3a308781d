"""Conv4, the standard small backbone in few-shot learning.

Vinyals et al., *Matching Networks for One Shot Learning*, 2016.
"""

from torch import nn

from memmeta.networks.norms import convolution, make_norm


class ConvBlock(nn.Sequential):
    """3x3 convolution, norm, 2x2 max-pool and ReLU. `memmeta.networks.fused` evaluates it."""

    def __init__(self, inputs: int, filters: int, norm: str) -> None:
        # ReLU after pooling gives the same result, since both are monotone, and is applied to a
        # quarter of the elements.
        super().__init__(
            convolution(inputs, filters, 3),
            make_norm(norm, filters),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
        )


def conv4(input_shape: tuple[int, ...], filters: int, norm: str) -> nn.Sequential:
    """Four blocks of 3x3 convolution, norm, ReLU and 2x2 max-pool.

    Maps [n, channels, height, width] to [n, filters * (height // 16) * (width // 16)].
    """
    inputs = (input_shape[0], filters, filters, filters)
    return nn.Sequential(*(ConvBlock(i, filters, norm) for i in inputs), nn.Flatten())
