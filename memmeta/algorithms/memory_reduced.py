"""Algorithm 1 of *Memory-Reduced Meta-Learning with Guaranteed Convergence* (arXiv 2412.12030).

With phi_K and v = H^-1 grad_phi f held constant, the paper's hypergradient is the gradient in
theta of one scalar, the mean over tasks of

    f(theta, phi_K) - <grad_phi g(theta, phi_K), v>.

The K inner steps and N CG iterations therefore run on features without a graph, and the backbone
needs one forward and one backward pass for any K and N. With N = 0, v is 0 and the result is the
first-order hypergradient. With `curvature: gauss_newton` H is the Gauss-Newton matrix (see
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

    `config.chunk` is the number of images that the backbone processes at a time. If it is at least
    one task, groups of tasks are processed one after another. If it is less, each chunk takes a
    forward pass without a graph and later a second one with a graph, so that the activations of
    only one chunk are stored. The gradient is the same.
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
    """Add `share` times the mean hypergradient of these tasks, `chunk` images at a time."""
    sets = episodes.support, episodes.query
    # With chunks the graph is not stored here; `chunks.backward` repeats the forward pass.
    with torch.set_grad_enabled(chunk is None):
        features = [chunks.features(model, images, chunk) for images in sets]
    # Detached, so that the cotangents are complete before the backbone's backward pass starts.
    leaves = [tensor.detach().requires_grad_() for tensor in features]
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
        for images, cotangent in zip(sets, cotangents, strict=True):
            chunks.backward(model, images, cotangent, chunk)

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
    """Run the inner loop, then CG (Subroutine 1) at phi_K.

    Returns:
        phi_K, v, the relative residuals of CG [tasks], and the share of tasks where CG stopped
        early.
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
