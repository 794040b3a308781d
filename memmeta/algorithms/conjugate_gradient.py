"""Conjugate gradient (the paper's Subroutine 1), batched over tasks."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_ROUNDING = 10.0
"""A product with A is taken to be right to so many epsilons of its type, times the norm of A."""


class Solved(NamedTuple):
    """Where the iterations ended."""

    x: Tensor
    """Shaped like b."""
    residual: Tensor
    """Each task's ||b - A x|| / ||b||, [tasks]; where b is 0, ||A x|| / ||A x0||, or 0 if both are
    0."""
    stopped: Tensor
    """Which tasks stopped before they were solved, as A is indefinite or singular, [tasks]."""


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor],
    b: Tensor,
    steps: int,
    x0: Tensor | None = None,
    floor: float = 0.0,
) -> Solved:
    """Approximately solve `A x = b`, one symmetric positive definite A for each task.

    A definite A takes every iterate nearer to the solution, in the norm of A, and x is the last
    one. That needs a floor which rounding does not hide. Without one A may be singular or
    indefinite: along the directions p that lie in its null space, to rounding, steps grow without
    bound. So x is then the iterate of least residual, x0 among them. A task stops for good where
    the curvature p'Ap is not positive, beyond rounding.

    Args:
        matvec: maps [tasks, ...] to [tasks, ...], applying each task's A to its own entry.
        b: right-hand sides, [tasks, ...].
        steps: iterations N; no host synchronisation, so there is no early exit.
        x0: starting points (zeros by default).
        floor: no eigenvalue of A is less, as far as is known.
    """
    # By a power of two, so that no digit changes: squares of the numbers stay in the type's range.
    scale = _power_of_two(b)
    b, x0 = b / scale, None if x0 is None else x0 / scale
    epsilon = torch.finfo(b.dtype).eps
    rounding = _ROUNDING * epsilon
    x = torch.zeros_like(b) if x0 is None else x0
    r = b - matvec(x) if x0 is not None else b
    p = r
    rr = _dot(r, r)
    start = rr.sqrt()
    solved = epsilon * torch.maximum(rr, _dot(b, b))  # to half of the digits
    norm, drift = torch.zeros_like(rr), torch.zeros_like(rr)
    best, least = x, start
    stopped = norm > 0
    for _ in range(steps):
        ap = matvec(p)
        pp, curvature = _dot(p, p), _dot(p, ap)
        norm = torch.maximum(norm, _ratio(_dot(ap, ap), pp).sqrt())
        stop = ~(curvature > rounding * norm * pp)
        stopped = stopped | (stop & (rr > solved))
        step = torch.where(stop, 0, _ratio(rr, curvature))
        x = x + step * p
        r = r - step * ap
        rr_next = _dot(r, r)
        # What rounding may have put between r and b - A x (van der Vorst and Ye, 2000).
        drift = drift + rounding * norm * step * pp.sqrt()
        bound = rr_next.sqrt() + drift
        best, least = torch.where(bound < least, x, best), torch.minimum(bound, least)
        # A task that has stopped goes nowhere any more: with p = 0 all later steps are 0.
        p = torch.where(step > 0, r + _ratio(rr_next, rr) * p, 0)
        rr = rr_next
    x = torch.where(floor > rounding * norm, x, best)
    size = _norm(b)
    size = torch.where(size > 0, size, start)
    residual = _norm(b - matvec(x)) / torch.where(size > 0, size, 1)
    return Solved(x * scale, residual.flatten(), stopped.flatten())


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each task, [tasks, 1, ...] so that it broadcasts."""
    return (a * b).sum(dim=tuple(range(1, a.dim())), keepdim=True)


def _power_of_two(a: Tensor) -> Tensor:
    """Each task's largest absolute value to the next power of two, or 1 if it is 0."""
    largest = a.abs().amax(dim=tuple(range(1, a.dim())), keepdim=True)
    # Powers beyond these have no inverse in float32.
    exponent = torch.frexp(largest).exponent.clamp(-126, 126)
    return torch.ldexp(torch.ones_like(largest), exponent)


def _norm(a: Tensor) -> Tensor:
    """Euclidean norm of each task, [tasks, 1, ...]."""
    norm: Tensor = torch.linalg.vector_norm(a, dim=tuple(range(1, a.dim())), keepdim=True)
    return norm


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient where the denominator is positive, else 0."""
    positive = denominator > 0
    return torch.where(positive, numerator / torch.where(positive, denominator, 1), 0)
