"""What every algorithm gives back of an outer step."""

from typing import NamedTuple

from torch import Tensor


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
