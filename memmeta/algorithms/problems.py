"""The inner problem of a batch of tasks: g and f as functions of phi, for given features.

Tasks are independent, so the gradient of the sum of their losses contains the gradient of each
task, and its Hessian is block-diagonal: one Hessian-vector product serves all tasks.

The curvature of g, for the linear solve, is its Hessian or its Gauss-Newton matrix

    J' L J + ridge * I,

where J is the Jacobian of the support scores in phi and L the second derivative of the mean loss in
the scores. The Gauss-Newton matrix omits the second derivatives of the scores from the Hessian. It
is positive semi-definite because both losses are convex in the scores (Schraudolph, *Fast Curvature
Matrix-Vector Products for Second-Order Gradient Descent*, 2002; Martens, *Deep Learning via
Hessian-free Optimization*, 2010). The two are equal if the scores are linear in phi. The mixed
derivative of the hypergradient is exact in both cases.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from memmeta.config import LearnerConfig
from memmeta.data.episodes import Episodes
from memmeta.networks import heads, losses
from memmeta.networks.heads import Head
from memmeta.networks.models import MetaModel


class Problem(Protocol):
    """The losses g and f of each task. phi is shaped as by `MetaModel.initial_phi`."""

    @property
    def curvature_floor(self) -> float:
        """Lower bound of the eigenvalues of `support_curvature` at any phi; 0 if not known."""

    def support_gradient(self, phi: Tensor) -> Tensor:
        """grad_phi g, shaped like phi; differentiable where gradients are enabled."""

    def support_curvature(self, phi: Tensor) -> Callable[[Tensor], Tensor]:
        """The curvature of g at phi, as a linear map of tensors shaped like phi; no graph."""

    def query_gradient(self, phi: Tensor) -> Tensor:
        """grad_phi f, shaped like phi; differentiable where gradients are enabled."""

    def query_scores(self, phi: Tensor) -> Tensor:
        """Scores of the query set, [tasks, n, outputs]."""


def inner_problem(
    model: MetaModel, support: Tensor, query: Tensor, episodes: Episodes, config: LearnerConfig
) -> Problem:
    """Create the inner problem of a batch of tasks.

    Args:
        model: provides the head.
        support: backbone output for the support sets, [tasks, n, ...].
        query: backbone output for the query sets, [tasks, m, ...].
        episodes: provides the labels.
        config: the settings.
    """
    labels = episodes.support_labels
    scale = partial(
        heads.head_inputs,
        scaling=config.feature_scaling,
        mean_square=losses.input_mean_square(labels, model.head.outputs),
    )
    if model.head.trunk is None:
        support, query = scale(support, query)
    else:
        # Second derivatives are faster without channels_last, unlike a single pass: a MAML step of
        # Conv4-64 took 0.50 s instead of 0.63 s with BatchNorm, and 0.42 s instead of 0.47 s with
        # GroupNorm.
        support, query = support.contiguous(), query.contiguous()
    sets = support, labels, query, episodes.query_labels
    if model.head.linear:
        return _Linear(*sets, config.ridge)
    gauss_newton = config.solved_curvature == "gauss_newton"
    return _General(*sets, config.ridge, model.head, scale, gauss_newton)


@dataclass(frozen=True)
class _Linear:
    """The problem of a linear head, in closed form."""

    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor
    ridge: float

    @property
    def curvature_floor(self) -> float:
        return self.ridge

    def support_gradient(self, phi: Tensor) -> Tensor:
        return heads.gradient(phi, self.support, self.support_labels, self.ridge)

    def support_curvature(self, phi: Tensor) -> Callable[[Tensor], Tensor]:
        curvature = losses.curvature(heads.scores(phi, self.support), self.support_labels)
        return lambda v: heads.hessian_vector_product(curvature, self.support, v, self.ridge)

    def query_gradient(self, phi: Tensor) -> Tensor:
        return heads.gradient(phi, self.query, self.query_labels)

    def query_scores(self, phi: Tensor) -> Tensor:
        return heads.scores(phi, self.query)


@dataclass(frozen=True)
class _General:
    """The problem of any head, by automatic differentiation."""

    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor
    ridge: float
    head: Head
    scale: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    gauss_newton: bool

    @property
    def curvature_floor(self) -> float:
        return self.ridge if self.gauss_newton else 0.0

    def support_gradient(self, phi: Tensor) -> Tensor:
        return _gradient(self._support_loss, phi)

    def support_curvature(self, phi: Tensor) -> Callable[[Tensor], Tensor]:
        leaf = phi.detach().requires_grad_()
        return self._gauss_newton(leaf) if self.gauss_newton else self._hessian(leaf)

    def _hessian(self, phi: Tensor) -> Callable[[Tensor], Tensor]:
        with torch.enable_grad():
            gradient = _gradient(self._support_loss, phi)
        return lambda v: torch.autograd.grad(gradient, phi, v, retain_graph=True)[0]

    def _gauss_newton(self, phi: Tensor) -> Callable[[Tensor], Tensor]:
        with torch.enable_grad():
            scores = self._scores(phi, self.support)
            # J'u is linear in u, so its derivative in u, at any u, gives products with J.
            u = torch.zeros_like(scores, requires_grad=True)
            (jt_u,) = torch.autograd.grad(scores, phi, u, create_graph=True)
        loss_curvature = losses.curvature(scores.detach(), self.support_labels)

        def product(v: Tensor) -> Tensor:
            (j_v,) = torch.autograd.grad(jt_u, u, v, retain_graph=True)
            w = loss_curvature(j_v) / scores.shape[1]
            (jt_w,) = torch.autograd.grad(scores, phi, w, retain_graph=True)
            return jt_w + self.ridge * v

        return product

    def query_gradient(self, phi: Tensor) -> Tensor:
        return _gradient(
            lambda leaf: losses.loss(self.query_scores(leaf), self.query_labels).sum(), phi
        )

    def query_scores(self, phi: Tensor) -> Tensor:
        return self._scores(phi, self.support, self.query)

    def _support_loss(self, phi: Tensor) -> Tensor:
        """Sum of g over tasks."""
        fit = losses.loss(self._scores(phi, self.support), self.support_labels)
        return fit.sum() + 0.5 * self.ridge * phi.square().sum()

    def _scores(self, *tasks: Tensor) -> Tensor:
        """Scores of all tasks, from the arguments of `_task_scores` stacked over tasks."""
        if any(isinstance(module, nn.Conv2d) for module in self.head.modules()):
            # Batched convolutions with separate weights per task are slower than a loop.
            return torch.stack([self._task_scores(*task) for task in zip(*tasks, strict=True)])
        scores: Tensor = vmap(self._task_scores)(*tasks)
        return scores

    def _task_scores(self, phi: Tensor, support: Tensor, query: Tensor | None = None) -> Tensor:
        """Query scores of one task, or its support scores without a query set."""
        parameters = _unflatten(phi, self.head)
        scores: Tensor = functional_call(self.head, parameters, (support, query, self.scale))
        return scores


def _gradient(loss: Callable[[Tensor], Tensor], phi: Tensor) -> Tensor:
    """Gradient of a scalar function, differentiable where gradients are enabled."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = phi if phi.requires_grad else phi.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf, create_graph=create_graph)
    return gradient


def _unflatten(phi: Tensor, head: nn.Module) -> dict[str, Tensor]:
    """Views of the phi [size] of one task as the parameters of `head`."""
    names, parameters = zip(*head.named_parameters(), strict=True)
    slices = torch.split(phi, [p.numel() for p in parameters])
    return {name: s.view_as(p) for name, s, p in zip(names, slices, parameters, strict=True)}
