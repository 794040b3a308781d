"""Images of users as models store them."""

import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from memmeta.data.formats.images import decode_image
from memmeta.data.images import as_stored
from memmeta.errors import InputError

GREY, COLOUR = (1, 20, 20), (3, 20, 20)


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_stored_images_stay_as_they_are():
    for shape in (GREY, COLOUR):
        images = pixels(4, 20, 20, shape[0])
        np.testing.assert_array_equal(as_stored(images, shape), images)


def test_the_result_does_not_share_memory():
    images = pixels(2, 20, 20, 3)
    as_stored(images, COLOUR)[:] = 0
    assert images.any()


FORMS = {
    "channels first": lambda images: images.transpose(0, 3, 1, 2),
    "tensor": torch.from_numpy,
    "list of arrays": list,
    "list of tensors": lambda images: [torch.from_numpy(image) for image in images],
    "tuple of PIL images": lambda images: tuple(map(Image.fromarray, images)),
    "float64": lambda images: images / 255,
    "float32": lambda images: (images / 255).astype(np.float32),
    "float16": lambda images: (images / 255).astype(np.float16),
    "float tensor with a gradient": lambda images: torch.from_numpy(images / 255).requires_grad_(),
    "read-only": lambda images: np.broadcast_to(images, images.shape),
    "reversed twice": lambda images: images[:, ::-1].copy()[:, ::-1],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(form):
    images = pixels(3, 20, 20, 3)
    np.testing.assert_array_equal(as_stored(FORMS[form](images), COLOUR), images)


def test_a_coarse_float_type_is_rounded_to_the_nearest_level():
    images = torch.from_numpy(pixels(3, 20, 20, 3))
    coarse = as_stored((images.double() / 255).bfloat16(), COLOUR)
    assert (coarse.int() - images.int()).abs().max() <= 1


def test_greyscale_without_channels():
    images = pixels(3, 20, 20)
    for form in (images, list(images), torch.from_numpy(images)):
        np.testing.assert_array_equal(as_stored(form, GREY)[..., 0], images)


def test_the_last_dimension_counts_as_channels_if_both_could():
    image = pixels(3, 20, 3)
    expected = np.asarray(Image.fromarray(image).resize((20, 20), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(as_stored([image], COLOUR)[0], expected)


def test_greyscale_becomes_colour_and_the_reverse():
    grey, colour = pixels(2, 20, 20, 1), pixels(2, 20, 20, 3)
    np.testing.assert_array_equal(as_stored(grey, COLOUR), grey.repeat(3, axis=-1))
    luma = colour @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(as_stored(colour, GREY)[..., 0], luma, atol=1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
@pytest.mark.parametrize("shape", [GREY, COLOUR])
def test_pil_images_of_any_mode_and_size(mode, shape):
    image = Image.fromarray(pixels(33, 17, 3)).convert(mode)
    stored = as_stored([image, image.resize((20, 20))], shape)
    assert stored.shape == (2, 20, 20, shape[0])
    small = image.convert("L" if shape[0] == 1 else "RGB").resize((20, 20), 1)
    np.testing.assert_array_equal(stored[0].numpy().squeeze(), np.asarray(small))


@pytest.mark.parametrize("grey", [True, False])
def test_files_become_what_the_readers_of_data_sets_make_of_them(grey):
    image, content = Image.fromarray(pixels(50, 41, 3)), io.BytesIO()
    image.save(content, "PNG")
    expected = decode_image("x.png", content.getvalue(), 20, resize=True, grey=grey)
    np.testing.assert_array_equal(as_stored([image], GREY if grey else COLOUR)[0], expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_sixteen_bits_are_scaled_and_not_clipped(dtype):
    levels = pixels(20, 20).astype(dtype)
    stored = as_stored([Image.fromarray(levels * 257)], GREY)
    np.testing.assert_array_equal(stored[0, ..., 0], levels)


def test_floats_of_pil():
    levels = pixels(20, 20)
    stored = as_stored([Image.fromarray((levels / 255).astype(np.float32))], GREY)
    np.testing.assert_array_equal(stored[0, ..., 0], levels)


def test_photographs_are_turned_upright():
    upright = pixels(20, 20, 3)
    turned, content = Image.fromarray(np.rot90(upright)), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    turned.save(content, "PNG", exif=exif)
    np.testing.assert_array_equal(as_stored([Image.open(content)], COLOUR)[0], upright)


def truncated() -> Image.Image:
    content = io.BytesIO()
    Image.fromarray(pixels(40, 40, 3)).save(content, "PNG")
    return Image.open(io.BytesIO(content.getvalue()[:500]))


def huge() -> Image.Image:
    """An image that states 400 million pixels, in a few bytes."""
    content = io.BytesIO()
    Image.new("1", (1, 1)).save(content, "BMP")
    header = bytearray(content.getvalue())
    header[18:26] = (20_000).to_bytes(4, "little") + (5_001).to_bytes(4, "little")
    with warnings.catch_warnings(action="ignore"):
        return Image.open(io.BytesIO(header))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((0, 20, 20, 3), np.uint8), "no images"),
        (np.zeros((2, 0, 20, 3), np.uint8), "no images"),
        ([], "no images"),
        (np.zeros((20, 20), np.uint8), r"shape \[20, 20\].*one image: \[image\]"),
        (np.zeros((20, 20, 3), np.uint8), r"shape \[20, 20, 3\].*one image: \[image\]"),
        (Image.new("L", (9, 9)), r"one image: \[image\]"),
        (np.zeros((2, 20, 20, 4), np.uint8), "1 or 3 channels"),
        ([np.zeros((20, 20, 2), np.uint8)], "image 0: shape.* 1 or 3 channels"),
        ([np.zeros(20, np.uint8)], r"image 0: shape \[20\]"),
        ([np.zeros((20, 0), np.uint8)], "image 0: shape"),
        (np.zeros((2, 20, 20, 3), np.int64), "numbers of type int64; uint8 from 0 to 255, or"),
        (np.zeros((2, 20, 20, 3), bool), "numbers of type bool"),
        (np.zeros((2, 20, 20, 3), complex), "numbers of type complex"),
        (np.full((2, 20, 20, 3), None), "numbers of type object"),
        (np.full((2, 20, 20, 3), 255.0), "255 is out of range; floats from 0 to 1"),
        (np.full((2, 20, 20, 3), -0.01), "-0.01 is out of range"),
        (np.full((2, 20, 20, 3), np.nan), "nan is out of range"),
        ([pixels(20, 20, 3), np.full((20, 20, 3), np.inf)], "image 1: inf is out of range"),
        ([Image.fromarray(np.full((9, 9), -1, np.int32))], "image 0: .*out of range"),
        ([Image.new("L", (9, 9)), "x.png"], "image 1: got a value of type str"),
        ("x.png", "got a value of type str"),
        (None, "got a value of type NoneType"),
        ({"a": 1}, "got a value of type dict"),
        ([[[0.0, 1.0]]], "image 0: got a value of type list"),
        ([truncated()], "image 0: cannot be decoded"),
        ([huge()], "image 0: 20000x5001 pixels exceed the limit"),
    ],
)
def test_others_are_refused_in_one_line(images, said):
    with pytest.raises(InputError, match=rf"^support_images: .*{said}") as error:
        as_stored(images, COLOUR, "support_images")
    assert "\n" not in error.value.message


def test_a_model_of_points_takes_no_images():
    with pytest.raises(InputError, match="points, not images"):
        as_stored(pixels(1, 20, 20, 3), (1,))


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    dims=st.integers(1, 4),
    dtype=st.sampled_from(["u1", "i2", "f4", "f8", "?"]),
    value=st.floats(width=32),
)
def test_any_array_is_accepted_or_refused(shape, dims, dtype, value):
    with np.errstate(invalid="ignore"):
        images = np.full(shape[:dims], value).astype(dtype)
    try:
        stored = as_stored(images, COLOUR)
    except InputError:
        return
    assert stored.shape == (shape[0], 20, 20, 3)
    assert stored.dtype == torch.uint8


def test_images_that_cannot_be_converted_are_named():
    with pytest.raises(InputError, match="photos: image 1: images of mode LAB"):
        as_stored([Image.new("L", (20, 20)), Image.new("LAB", (20, 20))], GREY, "photos")


def test_masked_arrays_are_refused():
    with pytest.raises(InputError, match="masked arrays"):
        as_stored(np.ma.masked_array(pixels(2, 20, 20, 3), mask=True), COLOUR)
