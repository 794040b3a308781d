"""Sinusoid regression (Finn, Abbeel and Levine, MAML, 2017, section 5.1). It needs no files.

A task is a wave y = amplitude * sin(x - phase), sampled at a few points.
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
from memmeta.data.inputs import Inputs
from memmeta.data.sources import SPLITS, TaskShape
from memmeta.metric import MSE

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, math.pi)
X = (-5.0, 5.0)


class Sinusoid:
    """Amplitudes, phases and points are uniform in AMPLITUDE, PHASE and X in every split.

    The splits differ only in their random numbers. No task occurs twice, within or across splits.
    """

    name = "sinusoid"
    input_shape = (1,)
    metric = MSE
    has_classes = False
    mirror_keeps_class = False
    rotation_makes_class = False

    def chance_level(self, ways: int) -> float:
        """The mean squared error of always predicting 0.

        It is half of the mean squared amplitude, because the phase is uniform over a full period of
        the squared sine.
        """
        del ways
        low, high = AMPLITUDE
        return (low**2 + low * high + high**2) / 6

    def load(self, data_root: Path, cache: Path | None = None) -> "Sinusoid":
        """Return the data set itself, since there are no files."""
        del data_root, cache
        return self

    @property
    def inputs(self) -> Inputs:
        """See `Dataset.inputs`."""
        return Inputs(input_shape=self.input_shape)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the definition. Version 1 denotes the order of draws in `_task`."""
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
        """See `Dataset.episodes`. Examples are float32 points [B, n, 1] with values [B, n].

        `shots` and `queries` are numbers of points.
        """
        count = shape.shots + shape.queries
        stream = SPLITS.index(split)
        tasks = [_task(np.random.default_rng([stream, seed, index]), count) for index in indices]
        points = torch.from_numpy(np.array(tasks, np.float32).reshape(len(tasks), 2, count))
        x, y = points[:, 0, :, None], points[:, 1]
        shots = shape.shots
        tensors = x[:, :shots], y[:, :shots], x[:, shots:], y[:, shots:]
        # Otherwise layers would copy these views in every pass.
        return Episodes(*(tensor.contiguous() for tensor in tensors))

    def to_input(self, stored: Tensor) -> Tensor:
        """See `Dataset.to_input`. Points are network input already."""
        return stored


def _task(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sample `count` points of one wave: x and y, float64 [count] each."""
    amplitude, phase = rng.uniform(*AMPLITUDE), rng.uniform(*PHASE)
    x = rng.uniform(*X, count)
    return x, amplitude * np.sin(x - phase)


SINUSOID = Sinusoid()
