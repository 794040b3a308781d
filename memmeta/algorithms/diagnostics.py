"""What every algorithm reports of an outer step."""

from typing import NamedTuple

from torch import Tensor


class Diagnostics(NamedTuple):
    """Means over the step's tasks, each a scalar without a graph."""

    query_loss: Tensor
    """Cross-entropy of the adapted head on the query images."""
    query_accuracy: Tensor
    """Share of query images classified correctly."""
    inner_gradient_norm: Tensor
    """||grad_phi g(phi_K)||: how far the inner loop is from its optimum."""
    cg_residual: Tensor
    """||b - H v|| / ||b||: how far the linear solve is from its solution."""
