"""What every algorithm gives back of an outer step."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from memmeta.data.episodes import Episodes


class Diagnostics(NamedTuple):
    """Means over the step's tasks, each a scalar without a graph, or None where it has no sense."""

    query_loss: Tensor
    """Loss of the adapted head on the query set."""
    query_accuracy: Tensor | None
    """Share of query images classified correctly; None for regression."""
    inner_gradient_norm: Tensor | None
    """||grad_phi g(phi_K)||: how far the inner loop is from its optimum; None where it would take
    another pass through the backbone."""
    cg_residual: Tensor | None
    """||b - H v|| / ||b||: how far the linear solve is from its solution; None without one."""
    cg_stopped: Tensor | None
    """Share of tasks whose linear solve stopped at a direction along which the curvature was
    negative, or 0 to rounding; None without one."""


class Solution(NamedTuple):
    """Where the inner loop and the linear solve ended, or where they start; without a graph."""

    phi: Tensor
    """As `MetaModel.initial_phi` has it."""
    v: Tensor
    """Shaped like phi; zeros for an algorithm without a linear solve."""


class Outcome(NamedTuple):
    """Of one step."""

    diagnostics: Diagnostics
    solution: Solution | None
    """Where the next warm start begins; None if this step had none."""


def in_parts(
    backward: Callable[[Episodes, Solution | None, float], Outcome],
    episodes: Episodes,
    start: Solution | None,
    size: int,
) -> Outcome:
    """The outcome of a step that takes `size` tasks at a time.

    Args:
        backward: adds a share of the mean hypergradient of some tasks, given them, their start and
            the share.
        episodes: all tasks of the step.
        start: all their warm starts, if there are any.
        size: how many tasks to give to `backward`; the last time it may be fewer.
    """
    tasks = len(episodes.support)
    outcomes = []
    for first in range(0, tasks, size):
        part = Episodes(*(each[first : first + size] for each in episodes))
        begin = Solution(*(each[first : first + size] for each in start)) if start else None
        share = len(part.support) / tasks
        outcomes.append((share, backward(part, begin, share)))
    return _mean_outcome(outcomes)


def _mean_outcome(parts: Sequence[tuple[float, Outcome]]) -> Outcome:
    """Of a step whose tasks were taken in parts, each with its share of the tasks."""
    if len(parts) == 1:
        return parts[0][1]
    diagnostics = Diagnostics(
        query_loss=_mean([(share, part.diagnostics.query_loss) for share, part in parts]),
        query_accuracy=_mean_if_any(parts, "query_accuracy"),
        inner_gradient_norm=_mean_if_any(parts, "inner_gradient_norm"),
        cg_residual=_mean_if_any(parts, "cg_residual"),
        cg_stopped=_mean_if_any(parts, "cg_stopped"),
    )
    solutions = [outcome.solution for _, outcome in parts if outcome.solution]
    joined = [torch.cat(both) for both in zip(*solutions, strict=True)]
    return Outcome(diagnostics, Solution(*joined) if solutions else None)


def _mean_if_any(parts: Sequence[tuple[float, Outcome]], name: str) -> Tensor | None:
    values = [(share, getattr(part.diagnostics, name)) for share, part in parts]
    return None if any(value is None for _, value in values) else _mean(values)


def _mean(values: Sequence[tuple[float, Tensor]]) -> Tensor:
    return torch.stack([share * value for share, value in values]).sum()
