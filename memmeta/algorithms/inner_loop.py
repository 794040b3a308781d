"""The inner loop shared by all algorithms, and prediction with an adapted head."""

import torch
from torch import Tensor

from memmeta.algorithms import problems
from memmeta.algorithms.problems import Problem
from memmeta.config import LearnerConfig
from memmeta.data.episodes import Episodes
from memmeta.networks import chunks
from memmeta.networks.models import MetaModel


@torch.no_grad()
def adapt(problem: Problem, phi: Tensor, config: LearnerConfig) -> Tensor:
    """Take K gradient steps on the support loss.

    Args:
        problem: the inner problem of the tasks.
        phi: the starting points, shaped as by `MetaModel.initial_phi`.
        config: the number of steps and the step size.

    Returns:
        phi_K, shaped like phi, without a graph.
    """
    for _ in range(config.inner_steps):
        phi = phi - config.inner_lr * problem.support_gradient(phi)
    return phi


@torch.no_grad()
def predict(model: MetaModel, episodes: Episodes, config: LearnerConfig) -> Tensor:
    """Scores of the query sets after adaptation, [tasks, n, outputs], without a graph.

    If `config.chunk` is smaller than a task, the backbone processes that many images at a time, or
    one set if the norm mixes the images of a set.
    """
    chunk = config.chunk if config.chunk and config.chunk < episodes.task_size else None
    support = chunks.features(model, episodes.support, chunk)
    query = chunks.features(model, episodes.query, chunk)
    problem = problems.inner_problem(model, support, query, episodes, config)
    return problem.query_scores(adapt(problem, model.initial_phi(len(support)), config))


def accuracy(scores: Tensor, labels: Tensor) -> Tensor | None:
    """Share of examples classified correctly, a scalar; None for regression."""
    if labels.is_floating_point():
        return None
    return (scores.argmax(-1) == labels).float().mean()
