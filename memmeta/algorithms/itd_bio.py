"""ITD-BiO: the hypergradient of K inner steps from a fixed phi^0, by differentiating through them.

*Bilevel Optimization: Convergence Analysis and Enhanced Design* (Ji, Yang and Liang, 2021),
its iterative differentiation. As in `memory_reduced` phi^0 is not learned.
"""

from memmeta.algorithms.unrolled import backward

__all__ = ["backward"]
