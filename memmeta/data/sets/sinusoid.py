"""Sine waves: regression tasks without files, after the first experiment of the MAML paper.

A task is one wave, y = amplitude * sin(x - phase), seen at a few points.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from memmeta.data.dataset import SplitName
from memmeta.data.episodes import Episodes
from memmeta.data.sources import SPLITS, TaskShape
from memmeta.metric import MSE

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, math.pi)
X = (-5.0, 5.0)


class Sinusoid:
    """Amplitudes, phases and points drawn evenly from AMPLITUDE, PHASE and X, in every split.

    The splits differ in their random numbers alone: no two tasks are the same, in one or two.
    """

    name = "sinusoid"
    input_shape = (1,)
    metric = MSE
    has_classes = False
    mirror_keeps_class = False
    rotation_makes_class = False

    def chance_level(self, ways: int) -> float:
        """The mean squared error of always predicting 0.

        That is half of the mean squared amplitude, since phases are spread evenly over a whole
        period of the squared sine.
        """
        del ways
        low, high = AMPLITUDE
        return (low**2 + low * high + high**2) / 6

    def load(self, data_root: Path, cache: Path | None = None) -> "Sinusoid":
        """Return itself: there is nothing to read."""
        del data_root, cache
        return self

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the definition; version 1 is how `_task` draws."""
        definition = f"y = a sin(x - p), a {AMPLITUDE}, p {PHASE}, x {X}, version 1"
        return hashlib.sha256(definition.encode()).hexdigest()

    def episodes(
        self,
        split: SplitName,
        shape: TaskShape,
        *,
        seed: int,
        indices: Sequence[int],
    ) -> Episodes:
        """As `Dataset.episodes`: float32 points [B, n, 1] and values [B, n].

        `shots` and `queries` count points.
        """
        count = shape.shots + shape.queries
        stream = SPLITS.index(split)
        tasks = [_task(np.random.default_rng([stream, seed, index]), count) for index in indices]
        points = torch.from_numpy(np.array(tasks, np.float32).reshape(len(tasks), 2, count))
        x, y = points[:, 0, :, None], points[:, 1]
        shots = shape.shots
        parts = x[:, :shots], y[:, :shots], x[:, shots:], y[:, shots:]
        # A layer would copy a view that is not contiguous.
        return Episodes(*(part.contiguous() for part in parts))

    def to_input(self, stored: Tensor) -> Tensor:
        """As `Dataset.to_input`: points as they are."""
        return stored


def _task(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` points of one wave: x and y, float64 [count] each."""
    amplitude, phase = rng.uniform(*AMPLITUDE), rng.uniform(*PHASE)
    x = rng.uniform(*X, count)
    return x, amplitude * np.sin(x - phase)


SINUSOID = Sinusoid()
