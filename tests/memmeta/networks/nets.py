"""Networks of users, which configs name by import path."""

import torch
import torch.nn.functional as F
from torch import nn

HERE = __name__


def convolutional(input_shape, width=4, norm=nn.BatchNorm2d):
    """Two convolutions, whose BatchNorm has statistics other than 0 and 1."""
    network = nn.Sequential(
        nn.Conv2d(input_shape[0], width, 3, stride=2),
        norm(width),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Conv2d(width, 2 * width, 3, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    if norm is nn.BatchNorm2d and network[1].running_mean is not None:
        network[1].running_mean.uniform_(-0.2, 0.2)
        network[1].running_var.uniform_(0.5, 2.0)
    return network


class Direct(nn.Module):
    """A parameter of its own, and children that are defined in another order than they are used."""

    def __init__(self, input_shape, unused=False):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.first = nn.Linear(input_shape[-1], 6)
        self.second = nn.Linear(6, 5)
        self.norm = nn.LayerNorm(5)
        self.unused = nn.Linear(2, 2) if unused else None

    def forward(self, x):
        x = x.flatten(1)[:, : self.first.in_features]
        return self.norm(self.second(torch.tanh(self.first(self.scale * x))))


class Reading(nn.Module):
    """Reads numbers while it is made, and keeps a buffer that is not saved."""

    def __init__(self, input_shape):
        super().__init__()
        self.rates = torch.linspace(0, 1, 3).tolist()
        self.register_buffer("positions", torch.arange(4.0), persistent=False)
        self.layer = nn.Conv2d(input_shape[0], 4, 3)

    def forward(self, x):
        return self.layer(x).mean((2, 3)) + self.rates[1] * self.positions


class Failing(nn.Module):
    """Does what `how` says, each of which is refused."""

    def __init__(self, input_shape, how):
        super().__init__()
        self.how = how
        self.layer = nn.Conv2d(input_shape[0], 4, 3)

    def forward(self, x):
        if self.how == "in place":
            x.mul_(2)
        features = self.layer(x).mean((2, 3))
        return {
            "in place": lambda: features,
            "random": lambda: F.dropout(features, training=True),
            "centred": lambda: features - features.mean(0),
            "map": lambda: self.layer(x),
            "pair": lambda: (features, features),
            "half": lambda: features.half(),
            "infinite": lambda: features / 0,
            "detached": lambda: features.detach(),
            "raises": lambda: features @ features,
        }[self.how]()


def batch_statistics(input_shape):
    return convolutional(
        input_shape, norm=lambda width: nn.BatchNorm2d(width, track_running_stats=False)
    )


def not_a_module(input_shape):
    return input_shape
