"""Models of timm (Wightman, *PyTorch Image Models*, 2019)."""

from types import ModuleType
from typing import Any

from torch import nn

from memmeta.errors import InputError, did_you_mean, shortened
from memmeta.system.torchvision import import_torchvision

_FIXED = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir",
          "num_classes")  # fmt: skip
"""Arguments of `timm.create_model` that other fields decide, or that would load other files."""


def create(name: str, *, downloaded: bool = False, **arguments: Any) -> nn.Module:
    """Create a model without its classifier.

    Args:
        name: as in `timm.list_models`, perhaps with a tag: `resnet18.a1_in1k`.
        downloaded: whether to download timm's weights. Otherwise the weights are random.
        arguments: further arguments of `timm.create_model`.

    Raises:
        InputError: timm is not installed or has no such model, it does not accept an argument, or
            the download failed.
    """
    timm = import_timm()
    if not timm.is_model(name):
        models = did_you_mean(name, timm.list_models())
        raise InputError(f"timm has no model {shortened(name)}{models}")
    fixed = [argument for argument in arguments if argument in _FIXED]
    if fixed:
        raise InputError(f"backbone_args: {fixed[0]} cannot be set (weights says what is loaded)")
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=downloaded, num_classes=0, **arguments
        )
    except Exception as error:
        if not downloaded:
            raise
        raise InputError(
            f"weights timm: those of {name} cannot be downloaded ({shortened(str(error))}); give a "
            "local file instead"
        ) from error
    return model


def is_timm_model(network: nn.Module) -> bool:
    """Whether a network has the methods and the configuration of timm's models."""
    return hasattr(network, "pretrained_cfg") and hasattr(network, "forward_head")


def data_config(network: nn.Module) -> dict[str, Any]:
    """How the images for a model are prepared: input_size, interpolation, mean and std."""
    config: dict[str, Any] = import_timm().data.resolve_model_data_config(network)
    return config


def parameter_groups(network: nn.Module) -> list[list[str]]:
    """The names of a model's parameters by block, from the input to the output."""
    matcher: Any = network.group_matcher
    models = import_timm().models
    groups: dict[int, list[str]] = models.group_parameters(network, matcher(coarse=True))
    return [groups[index] for index in sorted(groups)]


def classifier_names(network: nn.Module) -> tuple[str, ...]:
    """The names of a model's classifiers in files of weights."""
    config: Any = network.pretrained_cfg
    names = config.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def import_timm() -> ModuleType:
    """Import timm.

    Raises:
        InputError: it is not installed.
    """
    try:
        import_torchvision()
        import timm
    except ModuleNotFoundError as error:
        raise InputError(
            f"backbones timm/NAME need {error.name}: pip install 'memmeta[timm]'"
        ) from None
    return timm
