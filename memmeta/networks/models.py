"""The trained thing: a backbone, and the head's starting point."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from memmeta.config import LearnerConfig
from memmeta.errors import InputError
from memmeta.networks import BACKBONES, HEADS, heads, norms
from memmeta.networks.features import backbone_features
from memmeta.networks.heads import Head

ToInput = Callable[[Tensor], Tensor]


def as_stored(examples: Tensor) -> Tensor:
    """Network input that is stored as such."""
    return examples


class MetaModel(nn.Module):
    """Theta and phi^0.

    The parameters of `head` are phi^0. Where the algorithm does not learn it they require no
    gradient, and are a fixed starting point: random, but with an output layer of 0.

    Attributes:
        backbone: shared by all tasks.
        head: adapted to each task.
        to_input: makes network input of examples as they are stored (`Dataset.to_input`).
        half_precision: whether the backbone's convolutions are in bfloat16; features are not.
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
        """What the backbone makes of stored examples [tasks, n, ...]: [tasks, n, ...]."""
        with torch.autocast(examples.device.type, torch.bfloat16, enabled=self.half_precision):
            features = backbone_features(self.backbone, self.to_input(examples))
        return features.float() if self.half_precision else features

    def learned(self) -> list[nn.Parameter]:
        """What the outer loop learns."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def initial_phi(self, tasks: int) -> Tensor:
        """phi^0 for each task: [tasks, outputs, d] of a linear head, else flat, [tasks, size]."""
        if self.head.linear:
            return cast(nn.Linear, self.head.top).weight.expand(tasks, -1, -1)
        return torch.cat([p.flatten() for p in self.head.parameters()]).expand(tasks, -1)

    def calibrate(self, images: Tensor) -> None:
        """Set the statistics of frozen BatchNorm to those of stored images [n, ...]."""
        trunk = self.head.trunk or nn.Identity()
        norms.calibrate(nn.Sequential(self.backbone, trunk), self.to_input(images))


def build_backbone(config: LearnerConfig, input_shape: tuple[int, ...]) -> nn.Sequential:
    """A new backbone: inputs [n, *input_shape] to features [n, d]."""
    return BACKBONES[config.backbone].build(input_shape, config.filters, config.norm)


def build_model(
    config: LearnerConfig,
    input_shape: tuple[int, ...],
    outputs: int,
    to_input: ToInput = as_stored,
) -> MetaModel:
    """A new model.

    Args:
        config: says which.
        input_shape: of one example, (channels, height, width) for images.
        outputs: scores an example: the ways, or 1 for regression.
        to_input: makes network input of stored examples; as they are by default.

    Raises:
        InputError: the images are too small for the backbone.
    """
    backbone_kind, head_kind = BACKBONES[config.backbone], HEADS[config.head]
    smallest = 2**backbone_kind.blocks
    if backbone_kind.takes_images and min(input_shape[1:]) < smallest:
        raise InputError(
            f"images of {input_shape[1]}x{input_shape[2]} are too small for {config.backbone}, "
            f"which halves them {backbone_kind.blocks} times: {smallest}x{smallest} at least"
        )
    network = build_backbone(config, input_shape)
    with torch.no_grad():
        # BatchNorm asks for more than one image.
        d = network(torch.zeros(2, *input_shape)).shape[1] + 1
    top = head_kind.build(d, outputs, config.head_width)
    backbone, trunk = _split(network, config)
    half_precision = config.precision == "bfloat16"
    model = MetaModel(backbone, Head(trunk, top, outputs), to_input, half_precision=half_precision)
    model.head.requires_grad_(config.learns_initial_head)
    return model


def with_outputs(model: MetaModel, outputs: int) -> MetaModel:
    """The same backbone with a linear head that begins at 0, of so many outputs."""
    if outputs == model.head.outputs:
        return model
    weight = cast(nn.Linear, model.head.top).weight
    top = heads.linear_top(weight.shape[1], outputs).to(weight)
    head = Head(None, top, outputs)
    return MetaModel(model.backbone, head, model.to_input, half_precision=model.half_precision)


def _split(network: nn.Sequential, config: LearnerConfig) -> tuple[nn.Module, nn.Module | None]:
    """What of the network is shared, and what belongs to the head."""
    if config.adapts_backbone:
        return nn.Identity(), network
    if HEADS[config.head].takes_last_block:
        shared = BACKBONES[config.backbone].blocks - 1
        return network[:shared], network[shared:]
    return network, None
