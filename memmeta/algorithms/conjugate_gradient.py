"""Conjugate gradient (the paper's Subroutine 1), batched over tasks."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_ROUNDING = 10.0
"""Assumed error of a product with A, in machine epsilons times the norm of A."""


class Solved(NamedTuple):
    """Result of `conjugate_gradient`."""

    x: Tensor
    """Solution, shaped like b."""
    residual: Tensor
    """||b - A x|| / ||b|| of each task, [tasks]. For b = 0 it is ||A x|| / ||A x0||, or 0 if both
    norms are 0."""
    stopped: Tensor
    """bool [tasks]: whether a task stopped early because A is indefinite or singular."""


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor],
    b: Tensor,
    steps: int,
    x0: Tensor | None = None,
    floor: float = 0.0,
) -> Solved:
    """Approximately solve `A x = b` with one symmetric positive definite A per task.

    If A is known to be positive definite (`floor` exceeds rounding errors), every iterate is
    closer to the solution in the norm of A, and x is the last iterate. Otherwise A may be singular
    or indefinite, and steps along directions p in its numerical null space grow without bound. x
    is then the iterate with the smallest residual, which may be x0. A task stops for good when the
    curvature p'Ap is not positive beyond rounding.

    Args:
        matvec: maps [tasks, ...] to [tasks, ...], applying the A of each task to its entry.
        b: right-hand sides, [tasks, ...].
        steps: number of iterations N. All are run: an early exit would synchronise with the host.
        x0: starting points; zeros by default.
        floor: known lower bound of the eigenvalues of A; 0 if there is none.

    Returns:
        The solutions, their relative residuals, and the tasks that stopped early.

    Examples:
        >>> import torch
        >>> from memmeta.algorithms.conjugate_gradient import conjugate_gradient
        >>> a = torch.tensor([[[4.0, 1.0], [1.0, 3.0]]])  # one task
        >>> b = torch.tensor([[1.0, 2.0]])
        >>> solved = conjugate_gradient(lambda v: (a @ v[..., None])[..., 0], b, steps=2, floor=2.0)
        >>> torch.allclose(solved.x, torch.tensor([[1 / 11, 7 / 11]]))
        True
        >>> solved.stopped
        tensor([False])
    """
    # Keeps the squares of the numbers within range. A power of two, so that no digit changes.
    scale = _power_of_two(b)
    b, x0 = b / scale, None if x0 is None else x0 / scale
    epsilon = torch.finfo(b.dtype).eps
    rounding = _ROUNDING * epsilon
    x = torch.zeros_like(b) if x0 is None else x0
    r = b - matvec(x) if x0 is not None else b
    p = r
    rr = _dot(r, r)
    start = rr.sqrt()
    solved = epsilon * torch.maximum(rr, _dot(b, b))  # converged to half of the digits
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
        # Bound of the rounding error that separates r from b - A x (van der Vorst and Ye, 2000).
        drift = drift + rounding * norm * step * pp.sqrt()
        bound = rr_next.sqrt() + drift
        best, least = torch.where(bound < least, x, best), torch.minimum(bound, least)
        # With p = 0 all later steps of a task are 0, so it stays where it stopped.
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
    """Power of two above the largest absolute value of each task, or 1 if that is 0."""
    largest = a.abs().amax(dim=tuple(range(1, a.dim())), keepdim=True)
    # Larger exponents have no inverse in float32.
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
