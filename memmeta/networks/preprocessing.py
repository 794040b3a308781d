"""Stored images as the input of networks that have a size and a normalisation of their own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from memmeta.data.episodes import to_float

_WHITE = 255.0


class Normalisation(NamedTuple):
    """The mean and standard deviation of each channel, on the 0-255 scale."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Preprocessing:
    """Resizes and normalises images on their device, as a network expects them."""

    shape: tuple[int, int, int]
    """(C, H, W) of the network's input."""
    interpolation: str = "bilinear"
    """How images are resized, with antialiasing: `bilinear` or `bicubic`."""
    normalisation: Normalisation | None = None
    """None: as the data set normalises them."""

    def __call__(self, stored: Tensor, to_input: Callable[[Tensor], Tensor]) -> Tensor:
        """Convert stored images to network input.

        Args:
            stored: uint8 [tasks, n, H, W, C].
            to_input: `Dataset.to_input`, which is used without a normalisation of the network's.

        Returns:
            float32 [tasks, n, *shape].
        """
        flat = self._normalised(stored, to_input)
        return flat.reshape(*stored.shape[:2], *flat.shape[1:])

    def _normalised(self, stored: Tensor, to_input: Callable[[Tensor], Tensor]) -> Tensor:
        """Network input with tasks and images in one dimension."""
        if self.normalisation is None:
            return self._resized(to_input(stored).flatten(0, 1))
        channels = stored.shape[-1]
        images = to_float(stored.flatten(0, 1), (0.0,) * channels, (1.0,) * channels)
        # Bicubic interpolation exceeds the range.
        images = self._resized(images).clamp(0, _WHITE)
        mean, std = (
            torch.tensor(values, device=stored.device)[:, None, None]
            for values in self.normalisation
        )
        # A greyscale image becomes one of several equal channels here.
        return (images - mean) / std

    def _resized(self, images: Tensor) -> Tensor:
        """Images [n, C, H, W] in the network's size."""
        size = self.shape[1:]
        if images.shape[2:] == size:
            return images
        return F.interpolate(images, size, mode=self.interpolation, antialias=True)
