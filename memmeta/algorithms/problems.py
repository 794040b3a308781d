"""The inner problem of a batch of tasks: g and f as functions of phi, with the features given.

Tasks do not touch each other, so that the sum of their losses has each task's own gradient, and
a Hessian in blocks, one a task: one product with it serves all tasks.

The curvature of g, for the linear solve, is its Hessian or its Gauss-Newton matrix

    J' L J + ridge * I,

J the Jacobian of the support scores in phi, L the mean loss' second derivative in the scores. It is
the Hessian less the second derivatives of the scores, and positive semi-definite where the loss is
convex in the scores, as both losses are (Schraudolph, *Fast Curvature Matrix-Vector Products for
Second-Order Gradient Descent*, 2002; Martens, *Deep Learning via Hessian-free Optimization*, 2010).
For scores that are linear in phi both are the same. The mixed derivative of the hypergradient stays
exact.
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
    """Each task's g and f; phi is shaped as by `MetaModel.initial_phi`."""

    @property
    def curvature_floor(self) -> float:
        """No eigenvalue of `support_curvature` is less, at any phi; 0 if that is not known."""

    def support_gradient(self, phi: Tensor) -> Tensor:
        """grad_phi g, shaped like phi; differentiable where gradients are enabled."""

    def support_curvature(self, phi: Tensor) -> Callable[[Tensor], Tensor]:
        """The curvature of g in phi, as a map of tensors shaped like phi; without a graph."""

    def query_gradient(self, phi: Tensor) -> Tensor:
        """grad_phi f, shaped like phi; differentiable where gradients are enabled."""

    def query_scores(self, phi: Tensor) -> Tensor:
        """Scores of the query set, [tasks, n, outputs]."""


def inner_problem(
    model: MetaModel, support: Tensor, query: Tensor, episodes: Episodes, config: LearnerConfig
) -> Problem:
    """The problem on what the backbone made of the support and query sets, [tasks, n, ...]."""
    labels = episodes.support_labels
    scale = partial(
        heads.head_inputs,
        scaling=config.feature_scaling,
        mean_square=losses.input_mean_square(labels, model.head.outputs),
    )
    if model.head.trunk is None:
        support, query = scale(support, query)
    else:
        # Unlike one pass, two derivatives are quicker without channels_last: a MAML step of
        # Conv4-64 took 0.50 s against 0.63 s with BatchNorm, 0.42 s against 0.47 s with GroupNorm.
        support, query = support.contiguous(), query.contiguous()
    sets = support, labels, query, episodes.query_labels
    if model.head.linear:
        return _Linear(*sets, config.ridge)
    gauss_newton = config.solved_curvature == "gauss_newton"
    return _General(*sets, config.ridge, model.head, scale, gauss_newton)


@dataclass(frozen=True)
class _Linear:
    """In closed form."""

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
    """By automatic differentiation."""

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
        at = phi.detach().requires_grad_()
        return self._gauss_newton(at) if self.gauss_newton else self._hessian(at)

    def _hessian(self, at: Tensor) -> Callable[[Tensor], Tensor]:
        with torch.enable_grad():
            gradient = _gradient(self._support_loss, at)
        return lambda v: torch.autograd.grad(gradient, at, v, retain_graph=True)[0]

    def _gauss_newton(self, at: Tensor) -> Callable[[Tensor], Tensor]:
        with torch.enable_grad():
            scores = self._scores(at, self.support)
            # J'u is linear in u, so that its derivative in u, at any u, gives products with J.
            u = torch.zeros_like(scores, requires_grad=True)
            (back,) = torch.autograd.grad(scores, at, u, create_graph=True)
        of_loss = losses.curvature(scores.detach(), self.support_labels)

        def product(v: Tensor) -> Tensor:
            (forward,) = torch.autograd.grad(back, u, v, retain_graph=True)
            w = of_loss(forward) / scores.shape[1]
            (vector,) = torch.autograd.grad(scores, at, w, retain_graph=True)
            return vector + self.ridge * v

        return product

    def query_gradient(self, phi: Tensor) -> Tensor:
        return _gradient(
            lambda at: losses.loss(self.query_scores(at), self.query_labels).sum(), phi
        )

    def query_scores(self, phi: Tensor) -> Tensor:
        return self._scores(phi, self.support, self.query)

    def _support_loss(self, phi: Tensor) -> Tensor:
        """g, summed over tasks."""
        fit = losses.loss(self._scores(phi, self.support), self.support_labels)
        return fit.sum() + 0.5 * self.ridge * phi.square().sum()

    def _scores(self, *tasks: Tensor) -> Tensor:
        """Given phi and the support set, and the query set if its scores are wanted."""
        if any(isinstance(module, nn.Conv2d) for module in self.head.modules()):
            # Convolutions with each task's own weights are slower together than one by one.
            return torch.stack([self._task_scores(*task) for task in zip(*tasks, strict=True)])
        together: Tensor = vmap(self._task_scores)(*tasks)
        return together

    def _task_scores(self, phi: Tensor, support: Tensor, query: Tensor | None = None) -> Tensor:
        parameters = _unflatten(phi, self.head)
        scores: Tensor = functional_call(self.head, parameters, (support, query, self.scale))
        return scores


def _gradient(loss: Callable[[Tensor], Tensor], phi: Tensor) -> Tensor:
    """Gradient of a scalar function, differentiable where gradients are enabled."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        at = phi if phi.requires_grad else phi.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(at), at, create_graph=create_graph)
    return gradient


def _unflatten(phi: Tensor, head: nn.Module) -> dict[str, Tensor]:
    """Views of one task's phi [size] as the parameters of `head`."""
    names, parameters = zip(*head.named_parameters(), strict=True)
    parts = torch.split(phi, [p.numel() for p in parameters])
    return {n: part.view_as(p) for n, part, p in zip(names, parts, parameters, strict=True)}
