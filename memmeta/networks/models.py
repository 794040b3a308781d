"""The model that is meta-learned: a backbone and the initial head."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from memmeta.config import LearnerConfig
from memmeta.errors import InputError
from memmeta.networks import BACKBONES, HEADS, Backbone, OwnNetwork, heads, norms, own
from memmeta.networks.features import backbone_features
from memmeta.networks.heads import Head
from memmeta.networks.own import OwnBackbone

ToInput = Callable[[Tensor], Tensor]


def as_stored(examples: Tensor) -> Tensor:
    """The default `to_input`: examples are stored as network input."""
    return examples


class MetaModel(nn.Module):
    """Theta and phi^0.

    The parameters of `head` are phi^0. If the algorithm does not learn phi^0, they require no
    gradient and are a fixed starting point: random, except for an output layer of 0.

    Attributes:
        backbone: shared by all tasks.
        head: adapted to each task.
        to_input: converts stored examples to network input (`Dataset.to_input`).
        half_precision: whether the backbone's convolutions run in bfloat16. Features are float32.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: Head,
        to_input: ToInput = as_stored,
        *,
        half_precision: bool = False,
    ) -> None:
        super().__init__()
        self.half_precision = half_precision
        self.backbone = backbone
        self.head = head
        self.to_input = to_input

    def features(self, examples: Tensor) -> Tensor:
        """Map stored examples [tasks, n, ...] to the backbone's output [tasks, n, ...]."""
        with torch.autocast(examples.device.type, torch.bfloat16, enabled=self.half_precision):
            features = backbone_features(self.backbone, self.network_input(examples))
        return features.float() if self.half_precision else features

    def network_input(self, examples: Tensor) -> Tensor:
        """Stored examples [tasks, n, ...] as the backbone takes them."""
        if isinstance(self.backbone, OwnBackbone) and self.backbone.preprocessing:
            return self.backbone.preprocessing(examples, self.to_input)
        return self.to_input(examples)

    def learned(self) -> list[nn.Parameter]:
        """The parameters that the outer loop learns."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def initial_phi(self, tasks: int) -> Tensor:
        """phi^0 for each task: [tasks, outputs, d] for a linear head, else flat [tasks, size]."""
        if self.head.linear:
            return cast(nn.Linear, self.head.top).weight.expand(tasks, -1, -1)
        return torch.cat([p.flatten() for p in self.head.parameters()]).expand(tasks, -1)

    def calibrate(self, images: Tensor) -> None:
        """Set the statistics of frozen BatchNorm layers from stored images [n, ...]."""
        trunk = self.head.trunk or nn.Identity()
        norms.calibrate(nn.Sequential(self.backbone, trunk), self.to_input(images))


def build_backbone(config: LearnerConfig, input_shape: tuple[int, ...]) -> nn.Module:
    """Build a backbone for examples of `input_shape`: network input to features [n, d].

    Raises:
        InputError: see `memmeta.networks.own.build`; or the images are too small for the backbone.
    """
    kind = BACKBONES[config.backbone]
    if not isinstance(kind, Backbone):
        return own.build(config, input_shape)
    smallest = 2**kind.blocks
    if kind.takes_images and min(input_shape[1:]) < smallest:
        raise InputError(
            f"images of {input_shape[1]}x{input_shape[2]} are too small for {config.backbone}, "
            f"which halves them {kind.blocks} times: it needs at least {smallest}x{smallest}"
        )
    return kind.build(input_shape, config.filters, config.norm)


def build_model(
    config: LearnerConfig,
    input_shape: tuple[int, ...],
    outputs: int,
    to_input: ToInput = as_stored,
) -> MetaModel:
    """Build a model.

    Args:
        config: the settings.
        input_shape: shape of one example, (channels, height, width) for images.
        outputs: scores per example: the ways, or 1 for regression.
        to_input: converts stored examples to network input; by default they are used as they are.

    Raises:
        InputError: see `build_backbone`.

    Examples:
        >>> import torch
        >>> from memmeta.config import LearnerConfig
        >>> from memmeta.networks.models import build_model
        >>> model = build_model(LearnerConfig(filters=32), (3, 32, 32), outputs=5)
        >>> model.features(torch.rand(2, 10, 3, 32, 32)).shape
        torch.Size([2, 10, 128])
        >>> model.initial_phi(2).shape  # the last input is the bias
        torch.Size([2, 5, 129])
    """
    network = build_backbone(config, input_shape)
    d = _count_features(network, input_shape) + 1
    top = HEADS[config.head].build(d, outputs, config.head_width)
    backbone, trunk = _split(network, config)
    half_precision = config.precision == "bfloat16"
    model = MetaModel(backbone, Head(trunk, top, outputs), to_input, half_precision=half_precision)
    model.head.requires_grad_(config.learns_initial_head)
    return model


def without_memory(config: LearnerConfig) -> torch.device:
    """The device on which to build a model whose weights a saved state replaces.

    A user's function builds on the CPU, because its code may read numbers.
    """
    kind = BACKBONES[config.backbone]
    takes_memory = isinstance(kind, OwnNetwork) and kind.model is None
    return torch.device("cpu" if takes_memory else "meta")


def with_outputs(model: MetaModel, outputs: int) -> MetaModel:
    """The same backbone with a linear head for `outputs` scores, initialised to 0.

    Returns the model itself if its head has that many outputs.
    """
    if outputs == model.head.outputs:
        return model
    weight = cast(nn.Linear, model.head.top).weight
    top = heads.linear_top(weight.shape[1], outputs).to(weight)
    head = Head(None, top, outputs)
    return MetaModel(model.backbone, head, model.to_input, half_precision=model.half_precision)


def network_shape(backbone: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one input of a backbone, given that of an example."""
    return backbone.input_shape if isinstance(backbone, OwnBackbone) else input_shape


@torch.no_grad()
def _count_features(network: nn.Module, input_shape: tuple[int, ...]) -> int:
    """The features of one example, without the bias."""
    shape = network_shape(network, input_shape)
    parameter = next(network.parameters(), None)
    device = None if parameter is None else parameter.device
    # BatchNorm needs more than one image.
    features: Tensor = network(torch.zeros(2, *shape, device=device))
    return features.shape[1]


def _split(network: nn.Module, config: LearnerConfig) -> tuple[nn.Module, nn.Module | None]:
    """Split the network into the part shared by all tasks and the trunk of the head."""
    if config.adapts_backbone:
        return nn.Identity(), network
    if HEADS[config.head].takes_last_block:
        layers = cast(nn.Sequential, network)
        shared = BACKBONES[config.backbone].blocks - 1
        return layers[:shared], layers[shared:]
    return network, None
