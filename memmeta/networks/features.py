"""Features of the examples of a batch of tasks."""

import torch
from torch import Tensor, nn

from memmeta.networks import fused
from memmeta.networks.conv4 import ConvBlock
from memmeta.networks.norms import mixes_images


def backbone_features(backbone: nn.Module, images: Tensor) -> Tensor:
    """Map images [tasks, n, ...] to features [tasks, n, ...].

    BatchNorm normalises the set of each task separately. Other norms treat each image separately,
    so all tasks pass in one batch. Gradients flow to the backbone's parameters.

    A network of nothing but Conv4's blocks, and perhaps a final `nn.Flatten`, is evaluated by
    `memmeta.networks.fused`, which does not support second derivatives.
    """
    layers = list(backbone.children())
    ends_flat = bool(layers) and isinstance(layers[-1], nn.Flatten)
    others = layers[:-1] if ends_flat else layers
    blocks = [layer for layer in others if isinstance(layer, ConvBlock)]
    if blocks and len(blocks) == len(others):
        maps = fused.features(blocks, images)
        return maps.flatten(2) if ends_flat else maps
    if mixes_images(backbone):
        return torch.stack([backbone(task) for task in images])
    flat: Tensor = backbone(images.flatten(0, 1))
    return flat.reshape(*images.shape[:2], *flat.shape[1:])
