"""The linear head phi and its cross-entropy, in closed form and batched over tasks.

Shapes: inputs x [tasks, n, d] (features prepared by `head_inputs`, so d counts the bias),
labels [tasks, n], phi [tasks, ways, d]. Each task's support loss is

    g(phi) = mean_j CE(x_j phi', label_j) + (ridge / 2) ||phi||^2,

strongly convex for ridge > 0; its bias is regularised too, or it would not be. The query loss f
is the same with ridge = 0.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from memmeta.config import LearnerConfig, Scaling


def head_inputs(
    support: Tensor, query: Tensor, scaling: Scaling, ways: int
) -> tuple[Tensor, Tensor]:
    """Scale features [tasks, n, d - 1] and append the constant 1 of the bias: [tasks, n, d].

    A ReLU network's raw features share a large mean and have norm of order sqrt(d), so the head's
    Hessian has a few huge eigenvalues and no step size suits both ends of its spectrum.

    - `none`: as they are, as the paper has it.
    - `sqrt_dim`: divided by sqrt(d - 1).
    - `standardize`: the task's mean support feature subtracted from support and query, then both
      scaled to a mean square norm of 2 * ways on the support set. The Hessian at phi = 0 is
      (I / ways - 11' / ways^2) (x) X'X / n, so its largest eigenvalue is at most 2 for any
      backbone and any number of ways, and an inner_lr of about 1 is both stable and quick.
    """
    if scaling == "sqrt_dim":
        scale = 1 / math.sqrt(support.shape[-1])
        support, query = support * scale, query * scale
    elif scaling == "standardize":
        mean = support.mean(1, keepdim=True)
        support, query = support - mean, query - mean
        mean_square = support.square().sum(2, keepdim=True).mean(1, keepdim=True)
        factor = torch.rsqrt(mean_square / (2 * ways) + torch.finfo(support.dtype).tiny)
        support, query = support * factor, query * factor
    return F.pad(support, (0, 1), value=1.0), F.pad(query, (0, 1), value=1.0)


def logits(phi: Tensor, x: Tensor) -> Tensor:
    """Class scores, [tasks, n, ways]."""
    return x @ phi.mT


def loss(phi: Tensor, x: Tensor, labels: Tensor, ridge: float = 0.0) -> Tensor:
    """Each task's loss, [tasks]."""
    scores = logits(phi, x)
    fit = F.cross_entropy(scores.mT, labels, reduction="none").mean(1)
    return fit + 0.5 * ridge * phi.square().sum((1, 2))


def gradient(phi: Tensor, x: Tensor, labels: Tensor, ridge: float = 0.0) -> Tensor:
    """Gradient of `loss` with respect to phi, [tasks, ways, d]; differentiable in x."""
    error = logits(phi, x).softmax(-1) - F.one_hot(labels, phi.shape[1]).to(x.dtype)
    return error.mT @ x / x.shape[1] + ridge * phi


def hessian_vector_product(probabilities: Tensor, x: Tensor, v: Tensor, ridge: float) -> Tensor:
    """Hessian of `loss` with respect to phi, times v [tasks, ways, d].

    It depends on phi only through the class probabilities, [tasks, n, ways], and not on labels.
    """
    s = logits(v, x)
    curved = probabilities * (s - (probabilities * s).sum(-1, keepdim=True))
    return curved.mT @ x / x.shape[1] + ridge * v


@torch.no_grad()
def fit(x: Tensor, labels: Tensor, ways: int, config: LearnerConfig) -> Tensor:
    """The inner loop: K gradient steps on the support loss from phi = 0, without a graph."""
    phi = x.new_zeros(x.shape[0], ways, x.shape[2])
    for _ in range(config.inner_steps):
        phi = phi - config.inner_lr * gradient(phi, x, labels, config.ridge)
    return phi
