"""Conjugate gradient (the paper's Subroutine 1), batched over tasks."""

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor], b: Tensor, steps: int, x0: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Approximately solve `A x = b`, one symmetric positive definite A for each task.

    Args:
        matvec: maps [tasks, ...] to [tasks, ...], applying each task's A to its own entry.
        b: right-hand sides, [tasks, ...].
        steps: iterations N; no host synchronisation, so there is no early exit.
        x0: starting points (zeros by default).

    Returns:
        The last iterate, shaped like b, and each task's relative residual ||b - A x|| / ||b||,
        [tasks] (0 where b is 0). A task whose residual is 0, or whose curvature p'Ap is not
        positive (A indefinite), stays at the iterate it has. So it does if A is singular and p
        lies in its null space exactly; where rounding makes p'Ap of such a p a little more than 0,
        x grows with N, and the residual tells.
    """
    x = torch.zeros_like(b) if x0 is None else x0
    r = b - matvec(x) if x0 is not None else b
    p = r
    rr = _dot(r, r)
    for _ in range(steps):
        ap = matvec(p)
        step = _ratio(rr, _dot(p, ap))
        x = x + step * p
        r = r - step * ap
        rr_next = _dot(r, r)
        # A task that has stopped goes nowhere any more: with p = 0 all later steps are 0.
        p = torch.where(step > 0, r + _ratio(rr_next, rr) * p, 0)
        rr = rr_next
    residual = torch.linalg.vector_norm((b - matvec(x)).flatten(1), dim=1)
    scale = torch.linalg.vector_norm(b.flatten(1), dim=1)
    return x, torch.where(scale > 0, residual / scale, torch.zeros_like(scale))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each task, [tasks, 1, ...] so that it broadcasts."""
    return (a * b).sum(dim=tuple(range(1, a.dim())), keepdim=True)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient where the denominator is positive, else 0."""
    positive = denominator > 0
    return torch.where(positive, numerator / torch.where(positive, denominator, 1), 0)
