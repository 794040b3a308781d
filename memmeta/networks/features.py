"""Features of examples, for a whole batch of tasks."""

import torch
from torch import Tensor, nn

from memmeta.networks import fused
from memmeta.networks.conv4 import ConvBlock
from memmeta.networks.norms import mixes_images


def backbone_features(backbone: nn.Module, images: Tensor) -> Tensor:
    """Features of images [tasks, n, ...]: [tasks, n, ...].

    BatchNorm normalises each task's set on its own. Other norms treat each image on its own, so all
    tasks pass in one batch. Gradients flow to the backbone's parameters. Those of Conv4 cannot be
    differentiated again.
    """
    layers = list(backbone.children())
    blocks = [layer for layer in layers if isinstance(layer, ConvBlock)]
    if blocks:
        maps = fused.features(blocks, images)
        return maps.flatten(2) if isinstance(layers[-1], nn.Flatten) else maps
    if mixes_images(backbone):
        return torch.stack([backbone(task) for task in images])
    flat: Tensor = backbone(images.flatten(0, 1))
    return flat.reshape(*images.shape[:2], *flat.shape[1:])
