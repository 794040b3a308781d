"""Checks of networks that memmeta does not define, on a few random inputs."""

import torch
from torch import Tensor, nn

from memmeta.errors import InputError, shortened

_IMAGES = 3
_TOLERANCE = 1e-3
"""Relative difference of features up to which they count as equal. Rounding causes far less, and
statistics of a batch far more."""


def check(network: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Check that a network maps inputs to features, each input on its own, and can learn.

    Parameters that the features do not depend on are set to require no gradient.

    Raises:
        InputError: it does not. The message says what is wrong.
    """
    inputs = torch.randn(_IMAGES, *input_shape)
    before = inputs.clone()
    features = _features(network, inputs)
    if not torch.equal(inputs, before):
        raise InputError("changes its input in place: clone it first")
    _find_unused(network, features)
    with torch.no_grad():
        _check_equal(features, _features(network, inputs), "gives other features at each call")
        alone = torch.cat([_features(network, inputs[[i]]) for i in range(_IMAGES)])
        _check_equal(
            features,
            alone,
            "mixes the images of a batch (such as by BatchNorm without running statistics), which "
            "has no exact gradient in chunks: use BatchNorm with running statistics, LayerNorm or "
            "GroupNorm",
        )


def _features(network: nn.Module, inputs: Tensor) -> Tensor:
    """The features of inputs, after a check of their shape, type and values."""
    count = len(inputs)
    try:
        features: object = network(inputs)
    except Exception as error:
        raise InputError(
            f"cannot take inputs of shape {list(inputs.shape)}: {described(error)}"
        ) from error
    if not isinstance(features, Tensor):
        raise InputError(f"returns a {type(features).__name__}, not a tensor of features [n, d]")
    if features.dim() != 2 or len(features) != count or features.shape[1] == 0:
        raise InputError(
            f"maps {count} inputs to a tensor of shape {list(features.shape)}, not to a feature "
            f"vector each, [{count}, d]"
        )
    if features.dtype != torch.float32:
        raise InputError(f"returns features of {features.dtype}, not torch.float32")
    if not features.isfinite().all():
        raise InputError("returns features that are not finite")
    return features


def _find_unused(network: nn.Module, features: Tensor) -> None:
    """Let only parameters learn that the features depend on.

    Raises:
        InputError: there are parameters that should learn, but none does.
    """
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not learned:
        return
    if not features.requires_grad:
        raise InputError("returns features without a gradient: it cannot learn")
    gradients = torch.autograd.grad(features.sum(), learned, allow_unused=True)
    for parameter, gradient in zip(learned, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


def _check_equal(features: Tensor, again: Tensor, problem: str) -> None:
    difference = torch.linalg.vector_norm(features - again)
    if difference > _TOLERANCE * torch.linalg.vector_norm(features):
        raise InputError(problem)


def described(error: Exception) -> str:
    """An error of the user's code in one line."""
    return shortened(f"{type(error).__name__}: {error}")
