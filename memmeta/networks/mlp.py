"""The network for sinusoid regression of Finn, Abbeel and Levine (MAML), 2017, section 5.1."""

import math

from torch import nn

_WIDTH = 40


def mlp(input_shape: tuple[int, ...], filters: int, norm: str) -> nn.Sequential:
    """Build two layers of 40 ReLU units, which map [n, *input_shape] to [n, 40].

    `filters` and `norm` are ignored.
    """
    del filters, norm
    return nn.Sequential(
        nn.Linear(math.prod(input_shape), _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU()
    )
