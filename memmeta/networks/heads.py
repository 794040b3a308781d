"""Heads (phi): what the inner loop adapts, with every task's own values.

The linear head's gradient and Hessian are functions here, in closed form and batched over tasks.
Shapes: inputs x [tasks, n, d] (features prepared by `head_inputs`, so d counts the bias), labels
[tasks, n], phi [tasks, outputs, d]. Each task's support loss is

    g(phi) = mean_j loss(x_j phi', label_j) + (ridge / 2) ||phi||^2,

strongly convex for ridge > 0; its bias is regularised too, or it would not be. The query loss f
is the same with ridge = 0.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memmeta.config import Scaling
from memmeta.networks import losses


def head_inputs(
    support: Tensor, query: Tensor, scaling: Scaling, mean_square: float
) -> tuple[Tensor, Tensor]:
    """Scale features [..., n, d - 1] and append the constant 1 of the bias: [..., n, d].

    A ReLU network's raw features share a large mean and have norm of order sqrt(d), so the head's
    Hessian has a few huge eigenvalues and no step size suits both ends of its spectrum.

    - `none`: as they are, as the paper has it.
    - `sqrt_dim`: divided by sqrt(d - 1).
    - `standardize`: the task's mean support feature subtracted from support and query, then both
      scaled to the given mean square norm on the support set. With that of
      `losses.input_mean_square`, 2 * ways for classes, a linear head's Hessian at phi = 0, which
      is then (I / ways - 11' / ways^2) (x) X'X / n, has no eigenvalue above 2 for any backbone
      and any number of ways, and an inner_lr of about 1 is both stable and quick. Where all
      support features coincide, as those of a single example do, they are not scaled.
    """
    if scaling == "sqrt_dim":
        scale = 1 / math.sqrt(support.shape[-1])
        support, query = support * scale, query * scale
    elif scaling == "standardize":
        mean = support.mean(-2, keepdim=True)
        support, query = support - mean, query - mean
        actual = support.square().sum(-1, keepdim=True).mean(-2, keepdim=True)
        spread = actual / mean_square
        # 1 where the features coincide: there is nothing to scale, and rsqrt's derivative at 0 is
        # infinite. A sum, since a choice would keep its mask for the backward pass.
        factor = torch.rsqrt(spread + torch.finfo(spread.dtype).tiny + (spread == 0))
        support, query = support * factor, query * factor
    return F.pad(support, (0, 1), value=1.0), F.pad(query, (0, 1), value=1.0)


def scores(phi: Tensor, x: Tensor) -> Tensor:
    """Outputs of the linear head, [tasks, n, outputs]."""
    return x @ phi.mT


def gradient(phi: Tensor, x: Tensor, labels: Tensor, ridge: float = 0.0) -> Tensor:
    """Gradient of the linear head's loss in phi, [tasks, outputs, d]; differentiable in x."""
    return losses.residual(scores(phi, x), labels).mT @ x / x.shape[1] + ridge * phi


def hessian_vector_product(
    curvature: Callable[[Tensor], Tensor], x: Tensor, v: Tensor, ridge: float
) -> Tensor:
    """Hessian of the linear head's loss in phi, times v [tasks, outputs, d].

    It depends on phi through `losses.curvature` at phi's scores alone.
    """
    return curvature(scores(v, x)).mT @ x / x.shape[1] + ridge * v


class Head(nn.Module):
    """A network whose parameters are phi^0, for one task at a time.

    Attributes:
        trunk: maps what the backbone gives to features [n, d - 1]; None if those are features
            already, and then they come scaled, with the bias's constant.
        top: maps features so prepared, [n, d], to scores [n, outputs].
        outputs: scores an example.
    """

    def __init__(self, trunk: nn.Module | None, top: nn.Module, outputs: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.top = top
        self.outputs = outputs

    @property
    def linear(self) -> bool:
        """Whether there is nothing but a linear layer, so that the closed form applies."""
        return self.trunk is None and isinstance(self.top, nn.Linear)

    def forward(
        self,
        support: Tensor,
        query: Tensor | None,
        scale: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> Tensor:
        """Scores of the query set [m, outputs], or without one those of the support set."""
        x = support if query is None else query
        if self.trunk is not None:
            features = self.trunk(support)
            _, x = scale(features, features if query is None else self.trunk(query))
        scores: Tensor = self.top(x)
        return scores


def linear_top(inputs: int, outputs: int, width: int = 0) -> nn.Module:
    """A linear layer that starts at 0. Its bias is the weight of the constant input.

    It has no hidden layer whose `width` would count.
    """
    del width
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def mlp_top(inputs: int, outputs: int, width: int) -> nn.Module:
    """One hidden layer, which keeps the norm of small inputs, and an output layer at 0.

    The hidden units are tanh, because implicit differentiation needs second derivatives: with ReLU
    the optimum often lies on a kink.
    """
    hidden = nn.Linear(inputs, width, bias=False)
    nn.init.kaiming_normal_(hidden.weight, mode="fan_out", nonlinearity="linear")
    output = nn.Linear(width, outputs)
    nn.init.zeros_(output.weight)
    nn.init.zeros_(output.bias)
    return nn.Sequential(hidden, nn.Tanh(), output)
