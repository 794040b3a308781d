"""Prediction of the peak memory of a training step, without data and without the device.

The trainer runs its real step on PyTorch's fake tensors, which have shapes but no content. The
same counter as in a measurement counts their bytes, so prediction and measurement on the CPU agree
to the byte.

Examples:
    How the memory of a step grows with K, in MiB. ANIL without feature reuse stores the graph of
    every inner step; the memory-reduced algorithm does not.

    >>> from memmeta.config import LearnerConfig, RunConfig
    >>> from memmeta.memory.prediction import predict_peak_memory
    >>> for algorithm, reuse in (("memory_reduced", True), ("anil", False)):
    ...     for k in (1, 5):
    ...         learner = LearnerConfig(
    ...             algorithm=algorithm, feature_reuse=reuse, filters=8, inner_steps=k
    ...         )
    ...         print(algorithm, k, predict_peak_memory(RunConfig(learner=learner)) >> 20)
    memory_reduced 1 20
    memory_reduced 5 20
    anil 1 20
    anil 5 55
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from memmeta.algorithms import ALGORITHMS
from memmeta.config import LearnerConfig, RunConfig, TrainingConfig
from memmeta.data.dataset import SplitName
from memmeta.data.episodes import Episodes
from memmeta.data.features import FeatureMaker
from memmeta.data.inputs import Inputs
from memmeta.data.sources import TaskShape
from memmeta.evaluation import batch_size, score
from memmeta.memory.fake import fake_tensors
from memmeta.networks import HEADS
from memmeta.peak_memory import LiveBytes
from memmeta.system.runtime import usual_modes
from memmeta.training import MetaTrainer

# A loop without a graph uses the same memory in every iteration from the third on. Tests compare
# this and the other shortcuts with the full computation.
_STEADY = 3
_FEW = (16, 24, 32)
"""Numbers of tasks from which larger batches are extrapolated. With fewer tasks temporaries hide
the growth."""

Shape = tuple[int, ...]


class _Peaks(NamedTuple):
    """Peak memory of the two halves of a step, in bytes."""

    gradient: int
    """During `MetaTrainer.accumulate`."""
    update: int
    """During `MetaTrainer.apply`."""


@usual_modes()
def predict_peak_memory(config: RunConfig, input_shape: Shape | None = None) -> int:
    """Predict the peak memory in bytes of one outer step, as measured by `measure_peak`.

    The prediction is exact on the CPU, except for ResNet-12 with a single filter or with images of
    one channel. There it is up to 0.5 % too high, because kernels choose the memory layout of maps
    with one channel.

    Args:
        config: the run.
        input_shape: shape of one example, (channels, height, width) for images; by default that of
            the data set.
    """
    shape = input_shape or config.data.source.input_shape
    return max(_step_peaks(_relevant(config, eval_queries=1), shape))


class TrialMemory(NamedTuple):
    """Estimated peak memory of a run, in bytes of live tensors."""

    step: int
    """Peak of a training step. Equal to `predict_peak_memory` for up to 32 tasks per step, and
    within 1 % for more."""
    whole: int
    """Peak of the whole run, including its start and its validations."""


@usual_modes()
def predict_trial_memory(config: RunConfig, input_shape: Shape | None = None) -> TrialMemory:
    """Estimate the peak memory of a run.

    Large task batches are extrapolated from small ones, because a sweep predicts every trial.

    Args:
        config: the run.
        input_shape: see `predict_peak_memory`.
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
    """The peak of a run; extrapolated from fewer tasks per step if it grows linearly in them."""
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
    """A run with the same peak, and fixed values in fields that do not affect it.

    Runs that differ only in such fields share one cached prediction.
    """
    learner = config.learner
    keeps_graph = learner.unrolls and not learner.first_order
    run = RunConfig(
        data=config.data.model_copy(update={"rotations": False, "eval_queries": eval_queries}),
        learner=learner.without_weights(),
        training=TrainingConfig(iterations=1),
    )
    return _with_learner(
        run,
        inner_steps=learner.inner_steps if keeps_graph else min(learner.inner_steps, _STEADY),
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
    """The peaks of a step, extrapolated if it has many inner steps or is a step of MAML."""
    steps = config.learner.inner_steps
    if _steps_are_costly(config.learner) and steps > _STEADY + 1:
        before, steady, after = (
            _step_peaks(_with_learner(config, inner_steps=k), shape)
            for k in (_STEADY - 1, _STEADY, _STEADY + 1)
        )
        growth = after.gradient - steady.gradient
        if growth == steady.gradient - before.gradient > 0:
            # The peak is the graph of the inner steps, and every step adds the same amount.
            return _Peaks(steady.gradient + (steps - _STEADY) * growth, steady.update)
    if config.learner.adapts_backbone and config.learner.task_batch > 1:
        return _task_by_task_peaks(config, shape)
    return _simulated_peaks(config, shape)


def _steps_are_costly(learner: LearnerConfig) -> bool:
    """Whether an inner step passes through layers of the backbone and leaves a graph."""
    if not learner.unrolls or learner.first_order:
        return False
    if learner.adapts_backbone or not learner.feature_reuse:
        return True
    return HEADS[learner.head].takes_last_block


def _simulated_peaks(config: RunConfig, shape: Shape) -> _Peaks:
    """The peaks of a complete step on fake tensors."""
    with fake_tensors():
        trainer = _warm_trainer(config, shape)
        with LiveBytes() as live:
            live.count(trainer.held_tensors())
            if not trainer.learns:
                return _Peaks(live.peak, live.peak)
            metrics, end = trainer.accumulate()
            torch.stack([*metrics.values()])
            gradient = live.peak
            live.peak = live.current
            trainer.apply(end)
            return _Peaks(gradient, live.peak)


def _task_by_task_peaks(config: RunConfig, shape: Shape) -> _Peaks:
    """The peaks of MAML, from the last task only.

    MAML processes one task at a time. The peak is in the last task, when the episodes and
    diagnostics of all tasks are held. The update does not depend on the number of inner steps.
    """
    single = _with_learner(config, task_batch=1)
    brief = _with_learner(single, inner_steps=min(1, config.learner.inner_steps))
    data = config.data
    with fake_tensors():
        trainer = _warm_trainer(single, shape)
        episode = trainer.dataset.episodes("train", data.training_shape, seed=0, indices=[0])
        with LiveBytes() as live:
            live.count([*trainer.held_tensors(), *episode])
            backward = ALGORITHMS[single.learner.algorithm].backward
            outcome = backward(trainer.model, episode, single.learner)
    per_task = [tensor for tensor in (*episode, *outcome.diagnostics) if tensor is not None]
    others = (config.learner.task_batch - 1) * sum(tensor.nbytes for tensor in per_task)
    return _Peaks(live.peak + others, _step_peaks(brief, shape).update)


def _warm_trainer(config: RunConfig, shape: Shape) -> MetaTrainer:
    """A trainer that already holds gradients and optimiser state, as after a first step.

    It has also computed the features of a frozen backbone.
    """
    trainer = MetaTrainer(config, ShapeDataset(shape), "cpu")
    _ = trainer.tasks
    for parameter in trainer.model.learned():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    return trainer


@lru_cache(maxsize=4096)
def _validation_peak(config: RunConfig, shape: Shape) -> int:
    """The peak of creating a trainer, which calibrates frozen norms, and of a validation."""
    with fake_tensors(), LiveBytes() as live:
        trainer = _warm_trainer(config, shape)
        live.count(trainer.held_tensors())
        batch = range(batch_size(config))
        score(trainer.model, config, trainer.dataset, "val", batch)
        peak: int = live.peak
    return peak


class ShapeDataset:
    """A `Dataset` of zeros with a given input shape."""

    name = "shapes"
    digest = ""

    def __init__(self, input_shape: tuple[int, ...], *, classes: bool | None = None) -> None:
        """Create a data set.

        Args:
            input_shape: shape of one example.
            classes: whether tasks have classes; None: if examples are images.
        """
        self.input_shape = input_shape
        self._has_classes = self._images if classes is None else classes

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
        """See `Dataset.episodes`."""
        del split, seed
        support, query = shape.ways * shape.shots, shape.ways * shape.queries
        return Episodes(
            self._inputs(len(indices), support),
            self._labels(len(indices), support),
            self._inputs(len(indices), query),
            self._labels(len(indices), query),
        )

    @property
    def inputs(self) -> Inputs:
        """See `Dataset.inputs`."""
        ones = (1.0,) * self.input_shape[0] if self._images else ()
        return Inputs(input_shape=self.input_shape, mean=ones, std=ones)

    def to_input(self, stored: Tensor) -> Tensor:
        """See `Dataset.to_input`."""
        return self.inputs.to_input(stored)

    def featured(self, maker: FeatureMaker) -> "ShapeDataset":
        """See `HasFeatures.featured`. Passes one batch of images through the backbone."""
        features = maker.features(self._inputs(1, maker.at_once)[0])
        return ShapeDataset((features.shape[1],), classes=True)

    def _inputs(self, tasks: int, count: int) -> Tensor:
        if not self._images:
            return torch.zeros(tasks, count, *self.input_shape)
        channels, height, width = self.input_shape
        return torch.zeros(tasks, count, height, width, channels, dtype=torch.uint8)

    def _labels(self, tasks: int, count: int) -> Tensor:
        return torch.zeros(tasks, count, dtype=torch.int64 if self._has_classes else torch.float32)
