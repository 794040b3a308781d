"""Backbones (theta) and heads (phi)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from memmeta.errors import shown
from memmeta.registry import ImportPath, Registry, adopt_as, import_object

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Backbone:
    """A network below the head, and the properties that other settings depend on."""

    path: ImportPath
    """A function that builds the network from (input_shape, filters, norm)."""
    blocks: int = 0
    """Number of convolutional blocks, each of which halves height and width. They are the first
    modules of the network; head last_block adapts the last one. 0: the inputs are vectors."""

    @property
    def takes_images(self) -> bool:
        """Whether inputs are images rather than vectors."""
        return self.blocks > 0

    def build(self, input_shape: tuple[int, ...], filters: int, norm: str) -> "nn.Sequential":
        """Build a network that maps inputs [n, *input_shape] to features [n, d]."""
        network = import_object(self.path)(input_shape, filters, norm)
        return cast("nn.Sequential", network)


@dataclass(frozen=True)
class OwnNetwork:
    """A network that memmeta does not define: a model of timm, or the result of a function.

    `memmeta.networks.own` builds and checks it.
    """

    path: ImportPath
    """A function that makes an `nn.Module` from (input_shape, **backbone_args): inputs
    [n, *input_shape] to features [n, d]."""
    model: str | None = None
    """The name of a model of timm, which the function gets as its first argument."""
    blocks: ClassVar[int] = 0

    @property
    def takes_images(self) -> bool | None:
        """Whether inputs are images rather than vectors; None if only the network knows."""
        return True if self.model else None


TIMM = "timm/"
"""What the names of timm's models start with in configs."""


class _Backbones(Registry[Backbone | OwnNetwork]):
    """A registry in which `timm/NAME` is a model of timm."""

    def __getitem__(self, name: str) -> Backbone | OwnNetwork:
        if name.startswith(TIMM):
            path = ImportPath("memmeta.networks.timm_models:create")
            return OwnNetwork(path, name.removeprefix(TIMM))
        return super().__getitem__(name)

    def check(self, name: str) -> str:
        return name if name.startswith(TIMM) else super().check(name)


def _as_backbone(found: Any, place: str) -> Backbone | OwnNetwork:
    """The backbone found at an import path: an object of this kind, or what a function makes.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(found, Backbone | OwnNetwork):
        return found
    if callable(found):
        return OwnNetwork(ImportPath(place))
    raise ValueError(f"{place}: a function or Backbone is expected, got {shown(found)}")


@dataclass(frozen=True)
class HeadKind:
    """A type of head: the layers that the inner loop adapts."""

    path: ImportPath
    """A function that builds the top layers from (inputs, outputs, width)."""
    linear: bool = False
    """Whether the head is one linear layer on fixed features, so that closed forms apply."""
    takes_last_block: bool = False
    """Whether the inner loop also adapts the backbone's last block."""
    has_width: bool = False
    """Whether `LearnerConfig.head_width` counts."""

    def build(self, inputs: int, outputs: int, width: int) -> "nn.Module":
        """Build top layers that map prepared features [n, inputs] to scores [n, outputs]."""
        return cast("nn.Module", import_object(self.path)(inputs, outputs, width))


BACKBONES = _Backbones(
    "backbone",
    {
        "conv4": Backbone(ImportPath("memmeta.networks.conv4:conv4"), blocks=4),
        "resnet12": Backbone(ImportPath("memmeta.networks.resnet12:resnet12"), blocks=4),
        "mlp": Backbone(ImportPath("memmeta.networks.mlp:mlp")),
    },
    group="memmeta.backbones",
    adopt=_as_backbone,
)
"""Backbones by the name that configs use."""


def is_own(backbone: str) -> bool:
    """Whether a backbone is a model of timm, or made by a function of the user."""
    return isinstance(BACKBONES[backbone], OwnNetwork)


_LINEAR = ImportPath("memmeta.networks.heads:linear_top")

HEADS: Registry[HeadKind] = Registry(
    "head",
    {
        "linear": HeadKind(_LINEAR, linear=True),
        "mlp": HeadKind(ImportPath("memmeta.networks.heads:mlp_top"), has_width=True),
        "last_block": HeadKind(_LINEAR, takes_last_block=True),
    },
    group="memmeta.heads",
    adopt=adopt_as(HeadKind),
)
"""Types of head by the name that configs use."""
