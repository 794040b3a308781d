"""The backbone, a chunk of images at a time: exact, with the activations of one chunk in memory.

A chunk never divides what the norm takes together: in training `RunConfig` refuses such sizes, and
of an evaluation, whose sets may be larger, it is a whole set.
"""

import torch
from torch import Tensor

from memmeta.networks.models import MetaModel
from memmeta.networks.norms import mixes_images


def features(model: MetaModel, examples: Tensor, size: int | None) -> Tensor:
    """Features of examples [tasks, n, ...], `size` examples at a time; all at once if None."""
    if size is None:
        return model.features(examples)
    dim = _dim(model)
    parts = [model.features(part) for part in _split(examples, dim, size)]
    return torch.cat(parts, dim).reshape(*examples.shape[:2], *parts[0].shape[2:])


def backward(model: MetaModel, examples: Tensor, cotangent: Tensor, size: int) -> None:
    """Add to `.grad` what `cotangent`, of the features [tasks, n, ...], gives."""
    dim = _dim(model)
    pairs = zip(_split(examples, dim, size), _split(cotangent, dim, size), strict=True)
    for part, part_cotangent in pairs:
        torch.autograd.backward(model.features(part), part_cotangent)


def _dim(model: MetaModel) -> int:
    """Along tasks where images of a set depend on each other, else along images."""
    return 0 if mixes_images(model.backbone) else 1


def _split(examples: Tensor, dim: int, size: int) -> tuple[Tensor, ...]:
    """Parts of `size` examples: [tasks', n, ...] along tasks, [1, n', ...] along images."""
    if dim == 0:
        return torch.split(examples, max(1, size // examples.shape[1]))
    return torch.split(examples.flatten(0, 1)[None], size, dim=1)
