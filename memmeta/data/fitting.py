"""Fit a PIL image to the size, channels and type of a data set. Does not import PyTorch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from memmeta.data.formats.images import check_pixels
from memmeta.data.sources import Images
from memmeta.errors import InputError

_WHITE_16_BIT = 65535


def as_uint8(values: NDArray[Any], where: str) -> Images:
    """Convert an array of numbers from 0 to 1 to uint8 from 0 to 255; uint8 stays as it is.

    Raises:
        InputError: another type, or a number out of range.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(f"{where}: masked arrays are not accepted")
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind != "f":
        raise InputError(
            f"{where}: numbers of type {values.dtype}; uint8 from 0 to 255, or floats from 0 to 1, "
            "are accepted"
        )
    accepted = (values >= 0) & (values <= 1)  # false for NaN
    if not accepted.all():
        raise InputError(
            f"{where}: {values[~accepted].flat[0]:.6g} is out of range; floats from 0 to 1 are "
            "accepted, or uint8 from 0 to 255"
        )
    return np.rint(values.astype(np.float32) * 255).astype(np.uint8)


def upright(image: Image.Image, where: str) -> Image.Image:
    """Decode a PIL image, and turn it upright."""
    check_pixels(where, image)
    if 0 in image.size:
        raise InputError(f"{where}: no pixels: {image.width}x{image.height}")
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # Pillow's decoders raise many types of errors
        raise InputError(f"{where}: cannot be decoded") from None
    if image.mode == "F":
        return Image.fromarray(as_uint8(np.asarray(image), where))
    if image.mode.startswith("I"):
        # Pillow would clip the 16 bits of these modes to 8.
        values = np.asarray(image).astype(np.float64) / _WHITE_16_BIT
        return Image.fromarray(as_uint8(values, where))
    return image


def fitted(image: Image.Image, input_shape: tuple[int, ...], where: str) -> Images:
    """Convert a PIL image to uint8 [H, W, C] of a model, like `formats.images.decode_image`."""
    channels, height, width = input_shape
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        try:
            image = image.convert(mode)
        except ValueError:
            raise InputError(f"{where}: images of mode {image.mode} are not accepted") from None
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(height, width, channels)
