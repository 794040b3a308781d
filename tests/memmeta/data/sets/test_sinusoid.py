import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memmeta.data import load, prepare
from memmeta.data.dataset import Dataset
from memmeta.data.episodes import Episodes
from memmeta.data.sources import SPLITS, TaskShape
from memmeta.errors import InputError

SHAPE = TaskShape(ways=1, shots=10, queries=1)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return load("sinusoid", tmp_path)


def test_sinusoid_needs_no_files(dataset, tmp_path):
    assert dataset.input_shape == (1,)
    assert len(dataset.digest) == 64
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="sinusoid: has no files"):
        prepare("sinusoid", tmp_path)


def test_every_task_is_one_wave(dataset):
    """A sine and a cosine without a constant fit all points of a task."""
    drawn = dataset.episodes("train", SHAPE._replace(queries=20), seed=0, indices=range(500))
    assert drawn.support.shape == (500, 10, 1)
    assert drawn.query.shape == (500, 20, 1)
    assert drawn.support_labels.shape == (500, 10)
    assert drawn.query_labels.shape == (500, 20)
    assert {part.dtype for part in drawn} == {torch.float32}
    x = torch.cat([drawn.support, drawn.query], 1).squeeze(2).double().numpy()
    y = torch.cat([drawn.support_labels, drawn.query_labels], 1).double().numpy()
    amplitudes, phases = [], []
    for points, values in zip(x, y, strict=True):
        basis = np.stack([np.sin(points), np.cos(points)], 1)
        (a, b), *_ = np.linalg.lstsq(basis, values, rcond=None)
        np.testing.assert_allclose(basis @ (a, b), values, atol=1e-5)
        amplitudes.append(math.hypot(a, b))
        phases.append(math.atan2(-b, a) % (2 * math.pi))
    # Values cover the ranges almost to their ends, never exceed them, and the mean is the centre.
    for values, low, high in ((amplitudes, 0.1, 5), (phases, 0, math.pi), (x.ravel(), -5, 5)):
        assert low - 1e-5 <= min(values) < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < max(values) <= high + 1e-5
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.05 * (high - low))


@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**40), max_size=4))
def test_a_task_does_not_depend_on_its_batch(seed, indices):
    dataset = load("sinusoid", Path("nowhere"))

    def sample(indices: list[int]) -> Episodes:
        return dataset.episodes("val", SHAPE._replace(queries=3), seed=seed, indices=indices)

    together = sample(indices)
    assert together.support.shape == (len(indices), 10, 1)
    for i, index in enumerate(indices):
        for part, alone in zip(together, sample([index]), strict=True):
            assert torch.equal(part[i], alone[0])


def test_splits_seeds_and_indices_give_different_tasks(dataset):
    seen = {
        dataset.episodes(split, SHAPE, seed=seed, indices=[i]).support_labels.numpy().tobytes()
        for split in SPLITS
        for seed in range(5)
        for i in range(5)
    }
    assert len(seen) == 75


def test_points_are_network_input(dataset):
    drawn = dataset.episodes("test", SHAPE, seed=0, indices=[0])
    assert torch.equal(dataset.to_input(drawn.query), drawn.query)
