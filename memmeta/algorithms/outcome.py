"""The result of an outer step, the same for every algorithm."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from memmeta.data.episodes import Episodes


class Diagnostics(NamedTuple):
    """Means over the tasks of a step: scalars without a graph, or None if they do not apply."""

    query_loss: Tensor
    """Loss of the adapted head on the query set."""
    query_accuracy: Tensor | None
    """Share of query images classified correctly; None for regression."""
    inner_gradient_norm: Tensor | None
    """||grad_phi g(phi_K)||, the distance of the inner loop from its optimum; None if it would
    need another pass through the backbone."""
    cg_residual: Tensor | None
    """||b - H v|| / ||b||, the relative residual of the linear solve; None without one."""
    cg_stopped: Tensor | None
    """Share of tasks whose linear solve stopped early, at a direction of negative or (to rounding)
    zero curvature; None without a linear solve."""


class Solution(NamedTuple):
    """The end of the inner loop and of the linear solve, or a start for both; without a graph."""

    phi: Tensor
    """Shaped as by `MetaModel.initial_phi`."""
    v: Tensor
    """Shaped like phi; zeros for an algorithm without a linear solve."""


class Outcome(NamedTuple):
    """The result of one outer step, besides the gradients."""

    diagnostics: Diagnostics
    solution: Solution | None
    """The start for the next warm start; None if this step had no warm start."""


def in_parts(
    backward: Callable[[Episodes, Solution | None, float], Outcome],
    episodes: Episodes,
    start: Solution | None,
    size: int,
) -> Outcome:
    """Run a step on `size` tasks at a time.

    Args:
        backward: called with some of the tasks, their warm starts and their share of all tasks;
            adds that share times their mean hypergradient.
        episodes: all tasks of the step.
        start: warm starts of all tasks, or None.
        size: number of tasks per call of `backward`; the last call may get fewer.

    Returns:
        The outcome for all tasks.
    """
    tasks = len(episodes.support)
    outcomes = []
    for first in range(0, tasks, size):
        group = Episodes(*(tensor[first : first + size] for tensor in episodes))
        begin = Solution(*(tensor[first : first + size] for tensor in start)) if start else None
        share = len(group.support) / tasks
        outcomes.append((share, backward(group, begin, share)))
    return _mean_outcome(outcomes)


def _mean_outcome(outcomes: Sequence[tuple[float, Outcome]]) -> Outcome:
    """Combine the outcomes of groups of tasks, each weighted by its share of the tasks."""
    if len(outcomes) == 1:
        return outcomes[0][1]
    diagnostics = Diagnostics(
        query_loss=_mean([(share, outcome.diagnostics.query_loss) for share, outcome in outcomes]),
        query_accuracy=_mean_if_any(outcomes, "query_accuracy"),
        inner_gradient_norm=_mean_if_any(outcomes, "inner_gradient_norm"),
        cg_residual=_mean_if_any(outcomes, "cg_residual"),
        cg_stopped=_mean_if_any(outcomes, "cg_stopped"),
    )
    solutions = [outcome.solution for _, outcome in outcomes if outcome.solution]
    joined = [torch.cat(tensors) for tensors in zip(*solutions, strict=True)]
    return Outcome(diagnostics, Solution(*joined) if solutions else None)


def _mean_if_any(outcomes: Sequence[tuple[float, Outcome]], name: str) -> Tensor | None:
    values = [(share, getattr(outcome.diagnostics, name)) for share, outcome in outcomes]
    return None if any(value is None for _, value in values) else _mean(values)


def _mean(values: Sequence[tuple[float, Tensor]]) -> Tensor:
    return torch.stack([share * value for share, value in values]).sum()
