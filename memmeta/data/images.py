"""Images of any form as a trained model stores them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from memmeta.data.fitting import as_uint8, fitted, upright
from memmeta.data.sources import Images
from memmeta.errors import InputError, shortened

AnyImages = NDArray[Any] | Tensor | Sequence[Image.Image | NDArray[Any] | Tensor]
"""An array or tensor of images, or a list of images."""

_CHANNELS = (1, 3)


def as_stored(images: AnyImages, input_shape: tuple[int, ...], name: str = "images") -> Tensor:
    """Convert images to the size, channels and type that a model was trained on.

    An array or a tensor is always a batch: its first dimension counts images. It has the shape
    [n, H, W, C], [n, C, H, W] or, for greyscale, [n, H, W]. A list may contain PIL images, and
    arrays or tensors of one image each, [H, W, C], [C, H, W] or [H, W]. C is 1 or 3. The last
    dimension counts as the channels if it is 1 or 3, otherwise the first dimension of the image.

    Numbers are uint8, or floats from 0 to 1. PIL images may have any mode and size; their EXIF
    orientation is applied. Colour becomes greyscale (ITU-R 601-2 luma) and greyscale becomes colour
    where the model needs it. Other sizes are resized with a Lanczos filter, without keeping the
    ratio of the sides, as the readers of the data sets do.

    Args:
        images: n images.
        input_shape: (C, H, W) of the model.
        name: the argument, for messages.

    Returns:
        uint8 [n, H, W, C].

    Raises:
        InputError: there are no images, or an image is not accepted. The message gives its index.

    Examples:
        >>> import numpy as np
        >>> photos = np.random.default_rng(0).random((2, 3, 40, 50))
        >>> as_stored(photos, (1, 28, 28)).shape
        torch.Size([2, 28, 28, 1])
    """
    if len(input_shape) != 3:
        raise InputError(f"{name}: the model takes points, not images")
    channels, height, width = input_shape
    if channels not in _CHANNELS:
        raise InputError(f"{name}: the model takes images of {channels} channels, not 1 or 3")
    images = _numpy(images)
    if isinstance(images, np.ndarray):
        images = _batch(images, name)
        if images.shape[1:] == (height, width, channels):
            return torch.from_numpy(images.copy())
    elif isinstance(images, str | bytes) or not isinstance(images, Sequence):
        raise InputError(
            f"{name}: got {_kind(images)}; an array, a tensor or a list of images is accepted (one "
            "image: [image])"
        )
    if len(images) == 0:
        raise InputError(f"{name}: no images")
    stored = np.empty((len(images), height, width, channels), np.uint8)
    for index, image in enumerate(images):
        where = f"{name}: image {index}"
        stored[index] = fitted(_pillow(image, where), input_shape, where)
    return torch.from_numpy(stored)


def _kind(value: object) -> str:
    return f"a value of type {shortened(type(value).__name__)}"


def _numpy(value: Any) -> Any:
    """A tensor as an array; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    # NumPy has no bfloat16.
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _batch(values: NDArray[Any], name: str) -> Images:
    """Check an array of images and convert it to uint8 [n, H, W, C]."""
    if values.ndim == 3 and values.shape[-1] not in _CHANNELS:
        values = values[..., None]
    if values.ndim != 4:
        raise InputError(
            f"{name}: shape {list(values.shape)}; [n, H, W, C], [n, C, H, W] or greyscale "
            "[n, H, W] is accepted (one image: [image])"
        )
    if 0 in values.shape:
        raise InputError(f"{name}: no images: shape {list(values.shape)}")
    return as_uint8(_channels_last(values, name), name)


def _pillow(image: Any, where: str) -> Image.Image:
    """One image as a PIL image."""
    if isinstance(image, Image.Image):
        return upright(image, where)
    image = _numpy(image)
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"{where}: got {_kind(image)}; a PIL image, an array or a tensor is accepted"
        )
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or 0 in image.shape:
        raise InputError(
            f"{where}: shape {list(image.shape)}; [H, W, C], [C, H, W] or greyscale [H, W] is "
            "accepted"
        )
    pixels = as_uint8(_channels_last(image, where), where)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _channels_last(values: NDArray[Any], where: str) -> NDArray[Any]:
    """Move the channels of images [..., H, W, C] or [..., C, H, W] to the end."""
    if values.shape[-1] in _CHANNELS:
        return values
    if values.shape[-3] in _CHANNELS:
        return np.moveaxis(values, -3, -1)
    raise InputError(
        f"{where}: shape {list(values.shape)}; the first or last dimension of an image should be "
        "its 1 or 3 channels"
    )
