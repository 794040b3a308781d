"""Run the backbone on one chunk of images at a time, to store the activations of one chunk only.

The results are exact: a chunk never splits images that the norm normalises together. In training
`RunConfig` rejects chunk sizes that would split them. In evaluation, sets may be larger than the
chunk size; a chunk is then one whole set.
"""

import torch
from torch import Tensor

from memmeta.networks.models import MetaModel
from memmeta.networks.norms import mixes_images


def features(model: MetaModel, examples: Tensor, size: int | None) -> Tensor:
    """Features of examples [tasks, n, ...], `size` examples at a time; all at once if None."""
    if size is None:
        return model.features(examples)
    dim = _chunk_dim(model)
    outputs = [model.features(chunk) for chunk in _split(examples, dim, size)]
    return torch.cat(outputs, dim).reshape(*examples.shape[:2], *outputs[0].shape[2:])


def backward(model: MetaModel, examples: Tensor, cotangent: Tensor, size: int) -> None:
    """Backpropagate `cotangent` through the backbone, `size` examples at a time.

    Args:
        model: gradients are added to `.grad` of its backbone's parameters.
        examples: [tasks, n, ...].
        cotangent: gradient of the loss in the features, [tasks, n, ...].
        size: examples per chunk.
    """
    dim = _chunk_dim(model)
    pairs = zip(_split(examples, dim, size), _split(cotangent, dim, size), strict=True)
    for chunk, chunk_cotangent in pairs:
        torch.autograd.backward(model.features(chunk), chunk_cotangent)


def _chunk_dim(model: MetaModel) -> int:
    """Dimension to split: tasks (0) if images of a set depend on each other, else images (1)."""
    return 0 if mixes_images(model.backbone) else 1


def _split(examples: Tensor, dim: int, size: int) -> tuple[Tensor, ...]:
    """Chunks of `size` examples: [tasks', n, ...] along tasks, [1, n', ...] along images."""
    if dim == 0:
        return torch.split(examples, max(1, size // examples.shape[1]))
    return torch.split(examples.flatten(0, 1)[None], size, dim=1)
