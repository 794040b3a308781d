"""Hypergradients by differentiation through the K inner steps: ITD-BiO, ANIL and MAML."""

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
    """Add the gradient of the mean query loss f(theta, phi_K) to `.grad` of the learned parameters.

    With `config.feature_reuse` all inner steps use the same support features; without it each step
    recomputes them and keeps their graph. With `config.first_order` the inner gradients are treated
    as constants. `config.chunk` limits the number of images whose graph is stored at a time, in
    whole tasks. MAML always processes one task at a time, because convolutions with separate
    weights per task gain nothing from batching.
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
    """Add `share` times the gradient of the mean query loss of these tasks."""
    query = model.features(episodes.query)

    def new_problem() -> Problem:
        support = model.features(episodes.support)
        return problems.inner_problem(model, support, query, episodes, config)

    problem = new_problem()
    phi = start.phi if start else model.initial_phi(len(query))
    for step in range(config.inner_steps):
        if not config.feature_reuse and step > 0:
            problem = new_problem()
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
