"""Heads (phi): the parameters that the inner loop adapts separately for each task.

The gradient and Hessian of the linear head are given in closed form, batched over tasks. Shapes:
inputs x [tasks, n, d] (features prepared by `head_inputs`, so d includes the bias), labels
[tasks, n], phi [tasks, outputs, d]. The support loss of a task is

    g(phi) = mean_j loss(x_j phi', label_j) + (ridge / 2) ||phi||^2,

which is strongly convex for ridge > 0, because the bias is regularised as well. The query loss f is
the same with ridge = 0.

Examples:
    One gradient step of the linear head, for two tasks of 3 classes:

    >>> import torch
    >>> from memmeta.networks import heads
    >>> labels = torch.tensor([[0, 1, 2], [2, 1, 0]])
    >>> support, query = torch.rand(2, 3, 8), torch.rand(2, 5, 8)
    >>> x, x_query = heads.head_inputs(support, query, "standardize", mean_square=6.0)
    >>> phi = torch.zeros(2, 3, 9)
    >>> phi = phi - 1.0 * heads.gradient(phi, x, labels, ridge=0.01)
    >>> heads.scores(phi, x_query).shape
    torch.Size([2, 5, 3])
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
    """Scale features [..., n, d - 1] and append a constant 1 for the bias: [..., n, d].

    The raw features of a ReLU network share a large mean and have norms of order sqrt(d). The
    Hessian of the head then has a few huge eigenvalues, and no step size suits both ends of its
    spectrum.

    Args:
        support: support features, [..., n, d - 1].
        query: query features, [..., m, d - 1].
        scaling: one of

            - `none`: unchanged, as in the paper.
            - `sqrt_dim`: divided by sqrt(d - 1).
            - `standardize`: subtract the mean support feature of the task from both sets, then
              scale both so that the mean square norm of the support features is `mean_square`.
              With `losses.input_mean_square`, which is 2 * ways for classification, the Hessian of
              a linear head at phi = 0 is (I / ways - 11' / ways^2) (x) X'X / n. It has no
              eigenvalue above 2 for any backbone and any number of ways, so an inner_lr of about 1
              is both stable and fast. Support features that are all equal, such as those of a
              single example, are centred but not scaled.
        mean_square: target of `standardize`.

    Returns:
        Support inputs [..., n, d] and query inputs [..., m, d].
    """
    if scaling == "sqrt_dim":
        scale = 1 / math.sqrt(support.shape[-1])
        support, query = support * scale, query * scale
    elif scaling == "standardize":
        mean = support.mean(-2, keepdim=True)
        support, query = support - mean, query - mean
        actual = support.square().sum(-1, keepdim=True).mean(-2, keepdim=True)
        spread = actual / mean_square
        # 1 where all features are equal: there is nothing to scale, and rsqrt has an infinite
        # derivative at 0. A sum, because torch.where would store its mask for the backward pass.
        factor = torch.rsqrt(spread + torch.finfo(spread.dtype).tiny + (spread == 0))
        support, query = support * factor, query * factor
    return F.pad(support, (0, 1), value=1.0), F.pad(query, (0, 1), value=1.0)


def scores(phi: Tensor, x: Tensor) -> Tensor:
    """Outputs of the linear head with weights phi [tasks, outputs, d]: [tasks, n, outputs]."""
    return x @ phi.mT


def gradient(phi: Tensor, x: Tensor, labels: Tensor, ridge: float = 0.0) -> Tensor:
    """Gradient in phi of the linear head's loss, [tasks, outputs, d]; differentiable in x."""
    return losses.residual(scores(phi, x), labels).mT @ x / x.shape[1] + ridge * phi


def hessian_vector_product(
    curvature: Callable[[Tensor], Tensor], x: Tensor, v: Tensor, ridge: float
) -> Tensor:
    """Product of the linear head's Hessian with v, both [tasks, outputs, d].

    Args:
        curvature: `losses.curvature` at the scores of phi. The Hessian depends on phi only
            through it.
        x: inputs, [tasks, n, d].
        v: shaped like phi.
        ridge: L2 coefficient.
    """
    return curvature(scores(v, x)).mT @ x / x.shape[1] + ridge * v


class Head(nn.Module):
    """A network whose parameters are phi^0. It takes one task at a time.

    Attributes:
        trunk: layers of the backbone that are adapted too. They map the output of the shared
            layers to features [n, d - 1]. None: the head gets features that `head_inputs` has
            prepared.
        top: maps prepared features [n, d] to scores [n, outputs].
        outputs: scores per example.
    """

    def __init__(self, trunk: nn.Module | None, top: nn.Module, outputs: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.top = top
        self.outputs = outputs

    @property
    def linear(self) -> bool:
        """Whether the head is a single linear layer, so that the closed form applies."""
        return self.trunk is None and isinstance(self.top, nn.Linear)

    def forward(
        self,
        support: Tensor,
        query: Tensor | None,
        scale: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> Tensor:
        """Compute the scores of the query set [m, outputs], or of the support set without one.

        Args:
            support: support set of one task.
            query: query set of the task, or None.
            scale: prepares support and query features, see `head_inputs`. Used with a trunk only.
        """
        x = support if query is None else query
        if self.trunk is not None:
            features = self.trunk(support)
            _, x = scale(features, features if query is None else self.trunk(query))
        scores: Tensor = self.top(x)
        return scores


def linear_top(inputs: int, outputs: int, width: int = 0) -> nn.Module:
    """Build a linear layer with weights of 0, from [n, inputs] to [n, outputs].

    It has no bias: the weight of the constant input takes its place.

    `width` is ignored, since it counts hidden units.
    """
    del width
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def mlp_top(inputs: int, outputs: int, width: int) -> nn.Module:
    """Build a hidden layer that preserves the norm of small inputs, and an output layer of 0.

    They map [n, inputs] to [n, width] to [n, outputs].

    The hidden units are tanh because implicit differentiation needs second derivatives: with ReLU
    the optimum often lies on a kink.
    """
    hidden = nn.Linear(inputs, width, bias=False)
    nn.init.kaiming_normal_(hidden.weight, mode="fan_out", nonlinearity="linear")
    output = nn.Linear(width, outputs)
    nn.init.zeros_(output.weight)
    nn.init.zeros_(output.bias)
    return nn.Sequential(hidden, nn.Tanh(), output)
