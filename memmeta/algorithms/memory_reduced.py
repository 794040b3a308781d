"""Algorithm 1 of *Memory-Reduced Meta-Learning with Guaranteed Convergence* (arXiv 2412.12030).

With phi_K and v = H^-1 grad_phi f held constant, the paper's hypergradient is the gradient in
theta of one scalar, the mean over tasks of

    f(theta, phi_K) - <grad_phi g(theta, phi_K), v>.

Everything that depends on K or N therefore runs on features without a graph, and the backbone
sees one forward and one backward pass whatever they are.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from memmeta import backbones, heads
from memmeta.algorithms.diagnostics import Diagnostics
from memmeta.config import LearnerConfig
from memmeta.conjugate_gradient import conjugate_gradient
from memmeta.data import Episodes


def backward(
    backbone: nn.Module, episodes: Episodes, ways: int, config: LearnerConfig
) -> Diagnostics:
    """Add the mean hypergradient of the tasks to `.grad` of the backbone's parameters."""
    support = backbones.features(backbone, episodes.support)
    query = backbones.features(backbone, episodes.query)
    # Leaves of their own: the cotangents are complete before the backbone's backward starts.
    leaves = support.detach().requires_grad_(), query.detach().requires_grad_()
    x_support, x_query = heads.head_inputs(*leaves, config.feature_scaling, ways)

    inner = _solve(x_support, episodes.support_labels, x_query, episodes.query_labels, ways, config)
    query_loss = heads.loss(inner.phi, x_query, episodes.query_labels).mean()
    inner_gradient = heads.gradient(inner.phi, x_support, episodes.support_labels, config.ridge)
    scalar = query_loss - (inner_gradient * inner.v).sum((1, 2)).mean()
    torch.autograd.backward((support, query), torch.autograd.grad(scalar, leaves))

    with torch.no_grad():
        hits = heads.logits(inner.phi, x_query).argmax(-1) == episodes.query_labels
        return Diagnostics(
            query_loss=query_loss.detach(),
            query_accuracy=hits.float().mean(),
            inner_gradient_norm=torch.linalg.vector_norm(inner_gradient, dim=(1, 2)).mean(),
            cg_residual=inner.cg_residual.mean(),
        )


def predict(backbone: nn.Module, episodes: Episodes, ways: int, config: LearnerConfig) -> Tensor:
    """Class scores of the query images after adaptation, [tasks, n, ways]. Keeps no graph."""
    with torch.no_grad():
        support = backbones.features(backbone, episodes.support)
        query = backbones.features(backbone, episodes.query)
        x_support, x_query = heads.head_inputs(support, query, config.feature_scaling, ways)
        phi = heads.fit(x_support, episodes.support_labels, ways, config)
        return heads.logits(phi, x_query)


class _Inner(NamedTuple):
    phi: Tensor
    """phi_K, [tasks, ways, d]."""
    v: Tensor
    """CG's solution of H v = grad_phi f, [tasks, ways, d]."""
    cg_residual: Tensor
    """||b - H v|| / ||b||, [tasks]."""


@torch.no_grad()
def _solve(
    x_support: Tensor,
    support_labels: Tensor,
    x_query: Tensor,
    query_labels: Tensor,
    ways: int,
    config: LearnerConfig,
) -> _Inner:
    """The inner loop, then Subroutine 1 at its end."""
    phi = heads.fit(x_support, support_labels, ways, config)
    probabilities = heads.logits(phi, x_support).softmax(-1)
    v, residual = conjugate_gradient(
        lambda p: heads.hessian_vector_product(probabilities, x_support, p, config.ridge),
        heads.gradient(phi, x_query, query_labels),
        config.cg_steps,
    )
    return _Inner(phi, v, residual)
