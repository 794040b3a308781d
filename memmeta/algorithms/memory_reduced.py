"""Algorithm 1 of *Memory-Reduced Meta-Learning with Guaranteed Convergence* (arXiv 2412.12030).

With phi_K and v = H^-1 grad_phi f held constant, the paper's hypergradient is the gradient in
theta of one scalar, the mean over tasks of

    f(theta, phi_K) - <grad_phi g(theta, phi_K), v>.

Everything that depends on K or N therefore runs on features without a graph, and the backbone
sees one forward and one backward pass whatever they are. Without CG iterations v is 0, which is
the first-order hypergradient. With `curvature: gauss_newton` H is the Gauss-Newton matrix (see
`memmeta.algorithms.problems`).
"""

from functools import partial

import torch
from torch import Tensor

from memmeta.algorithms import problems
from memmeta.algorithms.conjugate_gradient import conjugate_gradient
from memmeta.algorithms.inner_loop import accuracy, adapt
from memmeta.algorithms.outcome import Diagnostics, Outcome, Solution, in_parts
from memmeta.algorithms.problems import Problem
from memmeta.config import LearnerConfig
from memmeta.data.episodes import Episodes
from memmeta.networks import chunks, losses
from memmeta.networks.models import MetaModel


def backward(
    model: MetaModel, episodes: Episodes, config: LearnerConfig, start: Solution | None = None
) -> Outcome:
    """Add the mean hypergradient of the tasks to `.grad` of the backbone's parameters.

    With `config.chunk` so many images are in the backbone at a time. Where that is a task or more,
    the step takes so many tasks after each other. Where it is less, each chunk is in a
    forward pass without a graph and one with; the gradient is the same, and activations of one
    chunk are held at most.
    """
    size, chunk = len(episodes.support), config.chunk
    if chunk is not None and chunk >= episodes.task_size:
        size, chunk = chunk // episodes.task_size, None
    return in_parts(partial(_backward, model, config, chunk), episodes, start, size)


def _backward(
    model: MetaModel,
    config: LearnerConfig,
    chunk: int | None,
    episodes: Episodes,
    start: Solution | None,
    share: float,
) -> Outcome:
    """Add `share` of these tasks' mean hypergradient, `chunk` images at a time."""
    images = episodes.support, episodes.query
    # With a chunk the features come without a graph, and each chunk's is made again below.
    with torch.set_grad_enabled(chunk is None):
        features = [chunks.features(model, part, chunk) for part in images]
    # Leaves of their own: the cotangents are complete before the backbone's backward starts.
    leaves = [part.detach().requires_grad_() for part in features]
    problem = problems.inner_problem(model, leaves[0], leaves[1], episodes, config)

    phi0 = start.phi if start else model.initial_phi(len(episodes.support))
    phi, v, residual, stopped = _solve(problem, phi0, start.v if start else None, config)
    scores = problem.query_scores(phi)
    query_loss = losses.loss(scores, episodes.query_labels).mean()
    inner_gradient = problem.support_gradient(phi)
    cotangents = torch.autograd.grad(
        share * (query_loss - (inner_gradient * v).flatten(1).sum(1).mean()), leaves
    )
    if chunk is None:
        torch.autograd.backward(features, cotangents)
    else:
        for part, cotangent in zip(images, cotangents, strict=True):
            chunks.backward(model, part, cotangent, chunk)

    norm = torch.linalg.vector_norm(inner_gradient.detach().flatten(1), dim=1).mean()
    diagnostics = Diagnostics(
        query_loss=query_loss.detach(),
        query_accuracy=accuracy(scores, episodes.query_labels),
        inner_gradient_norm=norm,
        cg_residual=residual.mean(),
        cg_stopped=stopped,
    )
    return Outcome(diagnostics, Solution(phi, v) if start else None)


@torch.no_grad()
def _solve(
    problem: Problem, phi: Tensor, v: Tensor | None, config: LearnerConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The inner loop, then Subroutine 1 at its end.

    Returns:
        phi_K, v, CG's relative residuals [tasks], and the share of tasks that it stopped at.
    """
    phi = adapt(problem, phi, config)
    v, residual, stopped = conjugate_gradient(
        problem.support_curvature(phi),
        problem.query_gradient(phi),
        config.cg_steps,
        v,
        problem.curvature_floor,
    )
    return phi, v, residual, stopped.float().mean()
