"""Peak memory of a training step, predicted without data, without the device and in no time.

PyTorch's fake tensors have shapes and no content: the trainer's own step runs on them and the
same counter counts their bytes, so that prediction and measurement on the CPU agree to the byte.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from memmeta.algorithms import ALGORITHMS
from memmeta.config import LearnerConfig, RunConfig, TrainingConfig
from memmeta.data.dataset import SplitName
from memmeta.data.episodes import Episodes, to_float
from memmeta.data.sources import TaskShape
from memmeta.memory.fake import fake_tensors
from memmeta.networks import HEADS
from memmeta.peak_memory import LiveBytes
from memmeta.training import MetaTrainer

# From its third round on a loop without a graph holds what it held the round before. This and the
# other shortcuts are tested against the whole way.
_STEADY = 3
_FEW = (16, 24, 32)
"""Tasks from which the peak of more is told: temporaries of few tasks hide how it grows."""

Shape = tuple[int, ...]


class _Peaks(NamedTuple):
    """The peaks of the two halves of a step, in bytes."""

    gradient: int
    """Of `MetaTrainer.accumulate`."""
    update: int
    """Of `MetaTrainer.apply`."""


def predict_peak_memory(config: RunConfig, input_shape: Shape | None = None) -> int:
    """The peak in bytes of one outer step of `config`, as `measure_peak` would measure it.

    Equal to the byte of what is measured on the CPU, except for ResNet-12 with a single filter or
    on images of one channel: up to half a per cent high, since kernels choose the layout of maps
    with one channel.

    Args:
        config: the run.
        input_shape: of one example, (channels, height, width) for images; the data set's own by
            default.
    """
    shape = input_shape or config.data.source.input_shape
    return max(_step_peaks(_relevant(config, eval_queries=1), shape))


class TrialMemory(NamedTuple):
    """What a run is estimated to hold at most, in bytes of live tensors."""

    step: int
    """In a training step: `predict_peak_memory`, exactly so up to 32 tasks a step, and for more
    within a hundredth."""
    whole: int
    """At any moment of it: its beginning, steps and validations."""


def predict_trial_memory(config: RunConfig, input_shape: Shape | None = None) -> TrialMemory:
    """Estimate what a run holds, from steps of few tasks: a sweep asks it of every trial.

    Args:
        config: the run.
        input_shape: as for `predict_peak_memory`.
    """
    shape = input_shape or config.data.source.input_shape
    step = _by_tasks(lambda run: max(_step_peaks(run, shape)), _relevant(config, eval_queries=1))
    relevant = _relevant(config, config.data.eval_queries)
    steps = min(relevant.learner.inner_steps, _STEADY)
    validated = _with_learner(relevant, inner_steps=steps, cg_steps=0)
    return TrialMemory(
        step, max(step, _by_tasks(partial(_validation_peak, shape=shape), validated))
    )


def _by_tasks(peak: Callable[[RunConfig], int], config: RunConfig) -> int:
    """The peak of a run of many tasks a step, from how it grows with few, where that is evenly."""
    tasks = config.learner.task_batch
    if config.learner.chunk is None and tasks > _FEW[2]:
        first, second, third = (
            peak(_with_learner(config, task_batch=few, task_pool=None, warm_start=False))
            for few in _FEW
        )
        if third - second == second - first > 0:
            return third + (tasks - _FEW[2]) * (third - second) // (_FEW[2] - _FEW[1])
    return peak(config)


def _relevant(config: RunConfig, eval_queries: int) -> RunConfig:
    """A run that holds the same: runs that only differ in other things are predicted once."""
    learner = config.learner
    graph = learner.unrolls and not learner.first_order
    run = RunConfig(
        data=config.data.model_copy(update={"rotations": False, "eval_queries": eval_queries}),
        learner=learner,
        training=TrainingConfig(iterations=1),
    )
    return _with_learner(
        run,
        inner_steps=learner.inner_steps if graph else min(learner.inner_steps, _STEADY),
        cg_steps=0 if learner.unrolls else min(learner.cg_steps, _STEADY),
        inner_lr=1.0,
        outer_lr=1.0,
        schedule="constant",
        weight_decay=0.0,
        ridge=0.0,
        task_pool=learner.task_pool if learner.warm_start else None,
    )


def _with_learner(config: RunConfig, **changes: object) -> RunConfig:
    learner = config.learner.model_copy(update=changes)
    return config.model_copy(update={"learner": learner})


@lru_cache(maxsize=4096)
def _step_peaks(config: RunConfig, shape: Shape) -> _Peaks:
    steps = config.learner.inner_steps
    if _steps_are_dear(config.learner) and steps > _STEADY + 1:
        before, steady, after = (
            _step_peaks(_with_learner(config, inner_steps=k), shape)
            for k in (_STEADY - 1, _STEADY, _STEADY + 1)
        )
        growth = after.gradient - steady.gradient
        if growth == steady.gradient - before.gradient > 0:
            # The graph of the steps is the peak, and every step adds the same to it.
            return _Peaks(steady.gradient + (steps - _STEADY) * growth, steady.update)
    if config.learner.adapts_backbone and config.learner.task_batch > 1:
        return _maml_peaks(config, shape)
    return _walk(config, shape)


def _steps_are_dear(learner: LearnerConfig) -> bool:
    """Whether an inner step passes through layers of the backbone and leaves a graph."""
    if not learner.unrolls or learner.first_order:
        return False
    if learner.adapts_backbone or not learner.feature_reuse:
        return True
    return HEADS[learner.head].takes_last_block


def _walk(config: RunConfig, shape: Shape) -> _Peaks:
    with fake_tensors():
        trainer = _warm_trainer(config, shape)
        with LiveBytes() as live:
            live.count(trainer.held_tensors())
            metrics, end = trainer.accumulate()
            torch.stack([*metrics.values()])
            gradient = live.peak
            live.peak = live.current
            trainer.apply(end)
            return _Peaks(gradient, live.peak)


def _maml_peaks(config: RunConfig, shape: Shape) -> _Peaks:
    """By the last task alone: MAML takes one at a time, and that one finds gradients."""
    alone = _with_learner(config, task_batch=1)
    brief = _with_learner(alone, inner_steps=min(1, config.learner.inner_steps))
    data = config.data
    with fake_tensors():
        trainer = _warm_trainer(alone, shape)
        episode = trainer.dataset.episodes("train", data.training_shape, seed=0, indices=[0])
        with LiveBytes() as live:
            live.count([*trainer.held_tensors(), *episode])
            backward = ALGORITHMS[alone.learner.algorithm].backward
            outcome = backward(trainer.model, episode, alone.learner)
    left = [part for part in (*episode, *outcome.diagnostics) if part is not None]
    others = (config.learner.task_batch - 1) * sum(part.nbytes for part in left)
    return _Peaks(live.peak + others, _step_peaks(brief, shape).update)


def _warm_trainer(config: RunConfig, shape: Shape) -> MetaTrainer:
    """With the gradients and the optimiser's state of a step before."""
    trainer = MetaTrainer(config, ShapeDataset(shape), "cpu")
    for parameter in trainer.model.learned():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    return trainer


@lru_cache(maxsize=4096)
def _validation_peak(config: RunConfig, shape: Shape) -> int:
    """Of the making of a trainer, which calibrates frozen norms, and of a validation."""
    with fake_tensors(), LiveBytes() as live:
        trainer = _warm_trainer(config, shape)
        live.count(trainer.held_tensors())
        trainer.score("val", range(trainer.evaluation_batch))
        peak: int = live.peak
    return peak


class ShapeDataset:
    """A `Dataset` of nothing but shapes: all its numbers are 0."""

    name = "shapes"
    digest = ""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.input_shape = input_shape

    @property
    def _images(self) -> bool:
        return len(self.input_shape) == 3

    def episodes(
        self,
        split: SplitName,
        shape: TaskShape,
        *,
        seed: int,
        indices: Sequence[int],
    ) -> Episodes:
        """As `Dataset.episodes`."""
        del split, seed
        support, query = shape.ways * shape.shots, shape.ways * shape.queries
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
