"""Peak memory of a training step, predicted without data, without the device and in no time.

PyTorch's fake tensors have shapes and no content: the trainer's own step runs on them and the
same counter counts their bytes, so that prediction and measurement on the CPU agree to the byte.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from memmeta.config import DataConfig, RunConfig
from memmeta.data import INPUT_SHAPES, Episodes, SplitName, to_float
from memmeta.memory import measure_peak
from memmeta.training import MetaTrainer


def predict_peak_memory(config: RunConfig, input_shape: tuple[int, ...] | None = None) -> int:
    """The peak in bytes of one outer step of `config`, as `memmeta.memory.measure_peak` has it.

    Args:
        config: the run.
        input_shape: of one example, (channels, height, width) for images; the data set's own by
            default.
    """
    shape = input_shape or INPUT_SHAPES[config.data.name]
    with FakeTensorMode():
        trainer = MetaTrainer(config, ShapeDataset(shape), "cpu")
        # A warm step finds gradients and the optimiser's state of the one before.
        for parameter in trainer.model.learned():
            parameter.grad = torch.zeros_like(parameter)
        trainer.optimizer.step()

        def step() -> None:
            metrics, end = trainer.accumulate()
            torch.stack([*metrics.values()])
            trainer.apply(end)

        return measure_peak(step, trainer.held_tensors, torch.device("cpu"))[1]


class ShapeDataset:
    """A `Dataset` of nothing but shapes: all its numbers are 0."""

    name = "shapes"
    digest = ""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.input_shape = input_shape

    @property
    def task(self) -> Literal["classification", "regression"]:
        """Classification of images, regression of anything else."""
        return "classification" if self._images else "regression"

    @property
    def _images(self) -> bool:
        return len(self.input_shape) == 3

    def episodes(
        self,
        split: SplitName,
        config: DataConfig,
        *,
        queries: int,
        seed: int,
        indices: Sequence[int],
    ) -> Episodes:
        """As `Dataset.episodes`."""
        del split, seed
        support, query = config.ways * config.shots, config.ways * queries
        return Episodes(
            self._inputs(len(indices), support),
            self._labels(len(indices), support),
            self._inputs(len(indices), query),
            self._labels(len(indices), query),
        )

    def to_input(self, stored: Tensor) -> Tensor:
        """As `Dataset.to_input`."""
        if not self._images:
            return stored
        ones = [1.0] * self.input_shape[0]
        return to_float(stored, ones, ones)

    def _inputs(self, tasks: int, count: int) -> Tensor:
        if not self._images:
            return torch.zeros(tasks, count, *self.input_shape)
        channels, height, width = self.input_shape
        return torch.zeros(tasks, count, height, width, channels, dtype=torch.uint8)

    def _labels(self, tasks: int, count: int) -> Tensor:
        return torch.zeros(tasks, count, dtype=torch.int64 if self._images else torch.float32)
