"""Hypergradients by differentiating through the K inner steps."""

from functools import partial

import torch
from torch import Tensor

from memmeta.algorithms import problems
from memmeta.algorithms.inner_loop import accuracy
from memmeta.algorithms.outcome import Diagnostics, Outcome, Solution, in_parts
from memmeta.algorithms.problems import Problem
from memmeta.config import LearnerConfig
from memmeta.data.episodes import Episodes
from memmeta.networks import losses
from memmeta.networks.models import MetaModel


def backward(
    model: MetaModel, episodes: Episodes, config: LearnerConfig, start: Solution | None = None
) -> Outcome:
    """Add the gradient of the tasks' mean query loss f(theta, phi_K) to `.grad` of what is learned.

    With `config.feature_reuse` all inner steps use the same support features. Without it each step
    computes its own, with their graph. With `config.first_order` the inner gradients count as
    constants. With `config.chunk` the step holds the graph of only that many images' tasks at a
    time. MAML always takes one task at a time, since convolutions with each task's own weights gain
    nothing from batching.
    """
    size = 1 if config.adapts_backbone else len(episodes.support)
    if config.chunk is not None:
        size = config.chunk // episodes.task_size
    return in_parts(partial(_backward, model, config), episodes, start, size)


def _backward(
    model: MetaModel,
    config: LearnerConfig,
    episodes: Episodes,
    start: Solution | None,
    share: float,
) -> Outcome:
    """Add `share` of the gradient of these tasks' mean query loss."""
    query = model.features(episodes.query)

    def problem_now() -> Problem:
        support = model.features(episodes.support)
        return problems.inner_problem(model, support, query, episodes, config)

    problem = problem_now()
    phi = start.phi if start else model.initial_phi(len(query))
    for step in range(config.inner_steps):
        if not config.feature_reuse and step > 0:
            problem = problem_now()
        with torch.set_grad_enabled(not config.first_order):
            gradient = problem.support_gradient(phi)
        phi = phi - config.inner_lr * gradient
    scores = problem.query_scores(phi)
    query_loss = losses.loss(scores, episodes.query_labels).mean()
    (share * query_loss).backward()  # type: ignore[no-untyped-call]

    phi = phi.detach()
    diagnostics = Diagnostics(
        query_loss=query_loss.detach(),
        query_accuracy=accuracy(scores.detach(), episodes.query_labels),
        inner_gradient_norm=_gradient_norm(problem, phi, config),
        cg_residual=None,
        cg_stopped=None,
    )
    return Outcome(diagnostics, Solution(phi, torch.zeros_like(phi)) if start else None)


@torch.no_grad()
def _gradient_norm(problem: Problem, phi: Tensor, config: LearnerConfig) -> Tensor | None:
    if config.adapts_backbone or not config.feature_reuse:
        return None
    norms: Tensor = torch.linalg.vector_norm(problem.support_gradient(phi).flatten(1), dim=1)
    return norms.mean()
