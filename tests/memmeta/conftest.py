import numpy as np
import pytest
import torch

from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig
from memmeta.data.dataset import ImageDataset
from memmeta.data.episodes import Split

# Tests are many small operations, which a second thread only slows.
torch.set_num_threads(1)


def make_split(seed: int, classes: int = 8, images: int = 12) -> Split:
    """Classes that differ in their mean image, under noise."""
    rng = np.random.default_rng(seed)
    means = rng.uniform(60, 190, (classes, 1, 16, 16, 1))
    noisy = means + rng.normal(0, 40, (classes, images, 16, 16, 1))
    return Split(
        images=noisy.clip(0, 255).astype(np.uint8).reshape(-1, 16, 16, 1),
        offsets=np.arange(classes + 1) * images,
        class_names=tuple(f"class{i}" for i in range(classes)),
    )


@pytest.fixture(scope="session")
def dataset() -> ImageDataset:
    train, val, test = map(make_split, range(3))
    return ImageDataset("glyphs", train, val, test, mean=(125.0,), std=(60.0,), digest="none")


@pytest.fixture
def run() -> RunConfig:
    """Small and quick, with an interruption possible between its two validations."""
    return RunConfig(
        data=DataConfig(ways=3, shots=2, queries=2, eval_queries=4),
        learner=LearnerConfig(filters=4, inner_steps=3, cg_steps=3, task_batch=2),
        training=TrainingConfig(iterations=6, evaluations=2, val_tasks=5, test_tasks=5),
        seed=3,
    )
