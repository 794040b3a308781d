"""Backbones (theta) and heads (phi)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from memmeta.registry import Place, Registry, imported

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Backbone:
    """A network below the head, and what other settings have to know of it."""

    place: Place
    """Of a function that makes the network from (input_shape, filters, norm)."""
    blocks: int = 0
    """Convolutional blocks, each of which halves images; with head last_block the last one is
    adapted. The first `blocks` modules of the network. 0: the backbone takes numbers."""

    @property
    def takes_images(self) -> bool:
        """Whether inputs are images, and not lists of numbers."""
        return self.blocks > 0

    def build(self, input_shape: tuple[int, ...], filters: int, norm: str) -> "nn.Sequential":
        """A new network: inputs [n, *input_shape] to features [n, d]."""
        network = imported(self.place)(input_shape, filters, norm)
        return cast("nn.Sequential", network)


@dataclass(frozen=True)
class HeadKind:
    """What the inner loop adapts."""

    place: Place
    """Of a function that makes the top layers from (inputs, outputs, width)."""
    linear: bool = False
    """Whether it is a linear layer on fixed features, so that closed forms apply."""
    takes_last_block: bool = False
    """Whether the backbone's last block is adapted too."""
    has_width: bool = False
    """Whether `LearnerConfig.head_width` counts."""

    def build(self, inputs: int, outputs: int, width: int) -> "nn.Module":
        """New top layers: prepared features [n, inputs] to scores [n, outputs]."""
        return cast("nn.Module", imported(self.place)(inputs, outputs, width))


BACKBONES: Registry[Backbone] = Registry(
    "backbone",
    {
        "conv4": Backbone(Place("memmeta.networks.conv4:conv4"), blocks=4),
        "resnet12": Backbone(Place("memmeta.networks.resnet12:resnet12"), blocks=4),
        "mlp": Backbone(Place("memmeta.networks.mlp:mlp")),
    },
)
"""The backbones that configs can name."""

_LINEAR = Place("memmeta.networks.heads:linear_top")

HEADS: Registry[HeadKind] = Registry(
    "head",
    {
        "linear": HeadKind(_LINEAR, linear=True),
        "mlp": HeadKind(Place("memmeta.networks.heads:mlp_top"), has_width=True),
        "last_block": HeadKind(_LINEAR, takes_last_block=True),
    },
)
"""The heads that configs can name."""
