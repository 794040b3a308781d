"""Losses of scores [tasks, n, outputs], and their first two derivatives in the scores.

The labels say which: integers [tasks, n] are classes and take cross-entropy, floats [tasks, n] are
targets of a single output and take the squared error.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Each task's mean loss, [tasks]."""
    if labels.is_floating_point():
        return (scores.squeeze(-1) - labels).square().mean(1)
    return F.cross_entropy(scores.mT, labels, reduction="none").mean(1)


def residual(scores: Tensor, labels: Tensor) -> Tensor:
    """Derivative of each example's loss in its scores, [tasks, n, outputs]."""
    if labels.is_floating_point():
        return 2 * (scores - labels.unsqueeze(-1))
    return scores.softmax(-1) - F.one_hot(labels, scores.shape[-1]).to(scores.dtype)


def curvature(scores: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Second derivative of each example's loss at its scores, as a map of [tasks, n, outputs]."""
    if labels.is_floating_point():
        return lambda s: 2 * s
    probabilities = scores.softmax(-1)
    return lambda s: probabilities * (s - (probabilities * s).sum(-1, keepdim=True))


def input_mean_square(labels: Tensor, outputs: int) -> float:
    """2 over the largest curvature at scores 0, which is 1 / outputs or, of a square, 2."""
    return 1.0 if labels.is_floating_point() else 2.0 * outputs
