"""Evaluation: adapt to tasks that training has not seen, and score their query sets."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from memmeta.algorithms.inner_loop import predict
from memmeta.config import RunConfig
from memmeta.data.dataset import Dataset
from memmeta.data.episodes import Episodes
from memmeta.errors import DivergedError
from memmeta.intervals import half_width
from memmeta.metric import MSE
from memmeta.networks import models
from memmeta.networks.losses import loss
from memmeta.networks.models import MetaModel

EVALUATION_SEED = 20_24_12_03
"""Seed of the validation and test episodes. It is the same for all runs, so they differ only in
training."""

EvaluationSplit = Literal["val", "test"]


class Evaluation(NamedTuple):
    """A run's metric over evaluation tasks."""

    value: float
    """Mean over tasks of `config.data.metric` on the query set."""
    interval: float
    """Half-width of the 95 % confidence interval over tasks: t * sd / sqrt(tasks), Student's t."""
    tasks: int
    """Number of tasks."""


def evaluate(
    model: MetaModel,
    config: RunConfig,
    dataset: Dataset,
    split: EvaluationSplit,
    tasks: int,
    iteration: int,
) -> Evaluation:
    """Adapt to `tasks` fixed episodes of `split` and score their query sets.

    Args:
        model: the model. It is not modified.
        config: the config of its run.
        dataset: supplies the tasks, in the shape that the model takes.
        split: the split of the data set.
        tasks: number of tasks.
        iteration: outer steps that the model has taken, for errors.

    Raises:
        DivergedError: the mean is not finite.
    """
    size = batch_size(config)
    batches = [
        score(model, config, dataset, split, range(first, min(first + size, tasks)))
        for first in range(0, tasks, size)
    ]
    values = torch.cat(batches).double()
    if not values.mean().isfinite():
        raise DivergedError(iteration)
    return Evaluation(values.mean().item(), half_width(values.tolist()), tasks)


def batch_size(config: RunConfig) -> int:
    """Number of tasks evaluated at once: no more images than in training, but at least a task.

    `predict` splits a task that is larger than a chunk.
    """
    data, learner = config.data, config.learner
    task = data.training_shape.ways * (data.shots + data.queries)
    tasks = 1 if learner.adapts_backbone else learner.task_batch
    images = learner.chunk or tasks * task
    return max(1, images // (data.ways * (data.shots + data.eval_queries)))


def score(
    model: MetaModel, config: RunConfig, dataset: Dataset, split: EvaluationSplit, indices: range
) -> Tensor:
    """The metric of each task after adaptation, [tasks]. Not finite if its scores are not."""
    shape = config.data.evaluation_shape
    sampled = dataset.episodes(split, shape, seed=EVALUATION_SEED, indices=indices)
    device = next(model.parameters()).device
    episodes = Episodes(*(part.to(device) for part in sampled))
    scores = predict(models.with_outputs(model, shape.ways), episodes, config.learner)
    if config.data.metric is MSE:
        return loss(scores, episodes.query_labels)
    accuracy = (scores.argmax(-1) == episodes.query_labels).float().mean(1)
    # argmax of NaNs is class 0, which would count as chance level.
    return accuracy.where(scores.isfinite().flatten(1).all(1), math.nan)
