"""Networks that memmeta does not define: models of timm, and those that a user's function makes.

They stay in evaluation mode: BatchNorm uses its running statistics and dropout is off, so every
image is treated separately, and gradients in chunks are exact.
"""

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from memmeta.config import LearnerConfig
from memmeta.errors import InputError
from memmeta.memory.fake import fakes_are_on, real_tensors
from memmeta.networks import BACKBONES, OwnNetwork, probe, timm_models, weights
from memmeta.networks.preprocessing import Normalisation, Preprocessing
from memmeta.registry import import_object
from memmeta.settings.weights import DOWNLOADED

Shape = tuple[int, ...]

_INTERPOLATIONS = ("bilinear", "bicubic")


class OwnBackbone(nn.Module):
    """An own network as a backbone: inputs [n, *input_shape] to features [n, d].

    Attributes:
        network: the module that timm or the user's function made.
        preprocessing: how images become its input; None: as the data set makes them.
        input_shape: shape of one input.
    """

    def __init__(
        self, network: nn.Module, input_shape: Shape, preprocessing: Preprocessing | None
    ) -> None:
        super().__init__()
        self.network = network
        self.input_shape = input_shape
        self.preprocessing = preprocessing
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """Features of inputs."""
        network: Any = self.network
        if timm_models.is_timm_model(network):
            features: Tensor = network.forward_head(
                network.forward_features(inputs), pre_logits=True
            )
            return features
        return network(inputs)  # type: ignore[no-any-return]  # checked by `probe`

    def train(self, mode: bool = True) -> "OwnBackbone":
        """Stay in evaluation mode, whatever `mode` says."""
        del mode
        return super().train(False)


def build(config: LearnerConfig, input_shape: Shape) -> OwnBackbone:
    """Build the own network of a config, load its weights and check it.

    Args:
        config: names the network.
        input_shape: shape of one example of the data, (C, H, W) for images.

    Raises:
        InputError: the network cannot be made, the weights do not fit, it has fewer blocks than
            `train_last`, or `memmeta.networks.probe` refuses it.
    """
    if not fakes_are_on():
        return _named(config.backbone, lambda: _built(config, input_shape))
    fields = ("backbone", "backbone_args", "train_last", "input_size")
    what = LearnerConfig(**{name: getattr(config, name) for name in fields})
    return _on_fake_tensors(_template(what, input_shape))


@lru_cache(maxsize=8)
def _template(config: LearnerConfig, input_shape: Shape) -> OwnBackbone:
    """A network made of real tensors, since a user's code may read numbers while it makes one."""
    with real_tensors():
        return build(config, input_shape)


def _on_fake_tensors(template: OwnBackbone) -> OwnBackbone:
    """A copy of a network with fake tensors as parameters and buffers."""
    fakes: dict[int, Any] = {}
    for tensor in [*template.parameters(), *template.buffers()]:
        fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
        is_parameter = isinstance(tensor, nn.Parameter)
        fakes[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if is_parameter else fake
    return copy.deepcopy(template, fakes)


def _named(name: str, make: Callable[[], OwnBackbone]) -> OwnBackbone:
    """Put the name of the network before the messages of errors."""
    try:
        return make()
    except InputError as error:
        raise InputError(f"backbone {name}: {error.message}") from error.__cause__


def _built(config: LearnerConfig, input_shape: Shape) -> OwnBackbone:
    shape = input_shape
    if config.input_size is not None:
        shape = (input_shape[0], config.input_size, config.input_size)
    network = _made(config, shape)
    if config.weights not in (None, DOWNLOADED):
        _load(network, config.weights)
    backbone = _as_backbone(network, config, input_shape, shape)
    _freeze(backbone.network, config.train_last)
    if not any(parameter.is_meta for parameter in backbone.parameters()):
        probe.check(backbone, backbone.input_shape)
    return backbone


def _made(config: LearnerConfig, shape: Shape) -> nn.Module:
    """Call the function that makes the network."""
    kind = BACKBONES[config.backbone]
    assert isinstance(kind, OwnNetwork)
    arguments = config.backbone_args or {}
    make = import_object(kind.path)
    try:
        if kind.model:
            network = make(kind.model, downloaded=config.weights == DOWNLOADED, **arguments)
        else:
            network = make(shape, **arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"cannot be made: {probe.described(error)}") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"an nn.Module is expected, got a {type(network).__name__}")
    return network


def _load(network: nn.Module, pinned: str | None) -> None:
    assert pinned is not None
    if timm_models.is_timm_model(network):
        weights.load(network, pinned, timm_models.classifier_names(network))
    else:
        weights.load(network, pinned)


def _as_backbone(
    network: nn.Module, config: LearnerConfig, data_shape: Shape, shape: Shape
) -> OwnBackbone:
    """Decide on the preprocessing of images."""
    if timm_models.is_timm_model(network):
        return _timm_backbone(network, config, data_shape)
    resized = len(shape) == 3 and shape != data_shape
    return OwnBackbone(network, shape, Preprocessing(_as_image(shape)) if resized else None)


def _timm_backbone(network: nn.Module, config: LearnerConfig, data_shape: Shape) -> OwnBackbone:
    wanted = timm_models.data_config(network)
    channels, *size = wanted["input_size"]
    if data_shape[0] not in (1, channels):
        raise InputError(f"takes images of {channels} channels, and the data have {data_shape[0]}")
    if config.input_size is not None:
        size = [config.input_size] * 2
        _resize(network, size)
    interpolation = wanted["interpolation"]
    normalisation = Normalisation(
        *(tuple(255.0 * value for value in wanted[name]) for name in ("mean", "std"))
    )
    shape = (channels, *size)
    preprocessing = Preprocessing(
        _as_image(shape),
        interpolation if interpolation in _INTERPOLATIONS else "bicubic",
        normalisation,
    )
    return OwnBackbone(network, shape, preprocessing)


def _resize(network: Any, size: Sequence[int]) -> None:
    """Prepare a model for images of another size, such as by resampling position embeddings."""
    if hasattr(network, "set_input_size"):
        try:
            network.set_input_size(tuple(size))
        except Exception as error:
            raise InputError(f"input_size {size[0]}: {probe.described(error)}") from error


def _as_image(shape: Shape) -> tuple[int, int, int]:
    channels, height, width = shape
    return channels, height, width


def _freeze(network: nn.Module, train_last: int | None) -> None:
    """Let only the last blocks learn."""
    if train_last is None:
        return
    blocks = parameter_blocks(network)
    if train_last > len(blocks):
        raise InputError(f"train_last {train_last}: there are {len(blocks)} blocks")
    parameters = dict(network.named_parameters())
    for names in blocks[: len(blocks) - train_last]:
        for name in names:
            parameters[name].requires_grad_(False)


def parameter_blocks(network: nn.Module) -> list[list[str]]:
    """The names of a network's parameters by block, from the input to the output.

    The blocks of a model of timm are its stem and its stages or layers. Those of another network
    are its direct children that have parameters, in the order in which they are defined; its own
    parameters count to the first one. A last block of nothing but vectors, such as a final norm,
    counts to the one before it.
    """
    if hasattr(network, "group_matcher"):
        blocks = timm_models.parameter_groups(network)
    else:
        blocks = _children(network)
    parameters = dict(network.named_parameters())
    if len(blocks) > 1 and all(parameters[name].dim() < 2 for name in blocks[-1]):
        blocks[-2:] = [blocks[-2] + blocks[-1]]
    return blocks


def _children(network: nn.Module) -> list[list[str]]:
    blocks = {name: [] for name, _ in network.named_children()}  # type: dict[str, list[str]]
    first: list[str] = []
    for name, _ in network.named_parameters():
        child = name.partition(".")[0]
        blocks.get(child, first).append(name)
    found = [names for names in blocks.values() if names]
    if found:
        found[0] = first + found[0]
        return found
    return [first] if first else []
