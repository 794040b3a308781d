"""A data set, a network and an algorithm, which own_study.py names by their import paths."""

import numpy as np
from PIL import Image
from torch import nn

from memmeta.algorithms.memory_reduced import backward
from memmeta.data.sources import ImageSource
from memmeta.networks import Backbone
from memmeta.registry import ImportPath


def read(data_root, split):
    """Yield the classes of a split, (name, uint8 images [n, 28, 28, 1]), in order."""
    for folder in sorted((data_root / "polygons" / split).iterdir()):
        images = [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]
        yield folder.name, np.stack(images)[..., None]


POLYGONS = ImageSource("polygons", (1, 28, 28), read)


def two_blocks(input_shape, filters, norm):
    """Map images [n, C, H, W] to features [n, filters * H / 4 * W / 4]."""
    del norm  # GroupNorm always
    layers = []
    for channels in (input_shape[0], filters):
        convolution = nn.Conv2d(channels, filters, 3, padding=1)
        norm_and_max = nn.GroupNorm(1, filters), nn.ReLU(), nn.MaxPool2d(2)
        layers.append(nn.Sequential(convolution, *norm_and_max))
    return nn.Sequential(*layers, nn.Flatten())


NETWORK = Backbone(ImportPath("own_code:two_blocks"), blocks=2)


def clipped(model, episodes, config, start=None):
    """Algorithm 1, with the norm of the hypergradient clipped to 1."""
    outcome = backward(model, episodes, config, start)
    nn.utils.clip_grad_norm_([*model.learned()], max_norm=1.0)
    return outcome
