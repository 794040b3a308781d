"""Losses of scores [tasks, n, outputs], and their first two derivatives in the scores.

The type of the labels [tasks, n] selects the loss: cross-entropy for integers, which are classes,
and the squared error for floats, which are targets of a single output.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of each task, [tasks]."""
    if labels.is_floating_point():
        return (scores.squeeze(-1) - labels).square().mean(1)
    return F.cross_entropy(scores.mT, labels, reduction="none").mean(1)


def residual(scores: Tensor, labels: Tensor) -> Tensor:
    """First derivative of the loss of each example in its scores, [tasks, n, outputs]."""
    if labels.is_floating_point():
        return 2 * (scores - labels.unsqueeze(-1))
    return scores.softmax(-1) - F.one_hot(labels, scores.shape[-1]).to(scores.dtype)


def curvature(scores: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Second derivative of the loss of each example at its scores.

    Returns:
        A linear map from [tasks, n, outputs] to [tasks, n, outputs].
    """
    if labels.is_floating_point():
        return lambda s: 2 * s
    probabilities = scores.softmax(-1)
    return lambda s: probabilities * (s - (probabilities * s).sum(-1, keepdim=True))


def input_mean_square(labels: Tensor, outputs: int) -> float:
    """2 divided by the largest eigenvalue of the loss' second derivative at scores of 0.

    That eigenvalue is 1 / outputs for cross-entropy and 2 for the squared error.
    """
    return 1.0 if labels.is_floating_point() else 2.0 * outputs
