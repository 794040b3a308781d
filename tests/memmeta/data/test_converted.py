import numpy as np
import pytest
import torch
from PIL import Image

from memmeta.data import load
from memmeta.data.converted import converted
from memmeta.data.dataset import ImageDataset
from memmeta.data.episodes import Split
from memmeta.data.inputs import Inputs
from memmeta.data.sets.sinusoid import SINUSOID
from memmeta.data.sources import TaskShape
from memmeta.errors import InputError

TASKS = TaskShape(ways=3, shots=2, queries=2)


def images_of(shape: tuple[int, ...]) -> ImageDataset:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (24, *shape), np.uint8)
    split = Split(images, np.arange(0, 25, 6), tuple("abcd"))
    channels = shape[-1]
    return ImageDataset(
        "other", split, split, split, (9.0,) * channels, (5.0,) * channels, "digits"
    )


def inputs(*shape: int) -> Inputs:
    return Inputs(input_shape=shape, mean=(100.0,) * shape[0], std=(50.0,) * shape[0])


def test_images_are_resized_and_change_their_channels_with_pillow():
    dataset = images_of((20, 24, 3))
    tasks = dataset.episodes("val", TASKS, seed=1, indices=[4, 5])
    grey = converted(dataset, inputs(1, 10, 8)).episodes("val", TASKS, seed=1, indices=[4, 5])
    for part in ("support", "query"):
        before, after = getattr(tasks, part), getattr(grey, part)
        assert after.shape == (2, 6, 10, 8, 1)
        assert after.dtype == torch.uint8
        for image, small in zip(before.flatten(0, 1), after.flatten(0, 1), strict=True):
            resized = Image.fromarray(image.numpy()).convert("L").resize((8, 10), Image.LANCZOS)
            np.testing.assert_array_equal(small[..., 0], resized)
    assert torch.equal(grey.support_labels, tasks.support_labels)


def test_images_of_the_same_shape_are_the_same_tasks_with_the_normalisation_of_the_model():
    dataset, target = images_of((8, 8, 1)), inputs(1, 8, 8)
    same = converted(dataset, target)
    tasks, expected = (
        each.episodes("test", TASKS, seed=0, indices=[0]) for each in (same, dataset)
    )
    assert all(torch.equal(a, b) for a, b in zip(tasks, expected, strict=True))
    normalised = same.to_input(tasks.query)
    pixels = tasks.query.double().movedim(-1, -3)
    assert torch.allclose(normalised.double(), (pixels - 100) / 50)
    assert (same.name, same.digest, same.input_shape) == ("other", "digits", (1, 8, 8))
    assert same.inputs == target


def test_rotated_classes_are_not_counted():
    dataset = converted(images_of((8, 8, 1)), inputs(1, 8, 8))
    with pytest.raises(InputError, match="5 ways, but the split has 4 classes"):
        dataset.episodes("test", TASKS._replace(ways=5, rotations=True), seed=0, indices=[])


def test_points_are_refused(tmp_path):
    with pytest.raises(InputError, match="sinusoid has points"):
        converted(SINUSOID, inputs(1, 8, 8))
    with pytest.raises(InputError, match="other has images, and the model takes points"):
        converted(images_of((8, 8, 1)), load("sinusoid", tmp_path))
