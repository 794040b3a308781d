"""The network of sinusoid regression in the MAML paper."""

import math

from torch import nn

_WIDTH = 40


def mlp(input_shape: tuple[int, ...], filters: int, norm: str) -> nn.Sequential:
    """Two hidden layers of 40 units with ReLU: [n, inputs] to [n, 40].

    It has neither filters nor a norm.
    """
    del filters, norm
    return nn.Sequential(
        nn.Linear(math.prod(input_shape), _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU()
    )
