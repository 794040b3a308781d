"""ANIL, almost no inner loop: the head alone is adapted, from a phi^0 that is learned with theta.

*Rapid Learning or Feature Reuse?* (Raghu, Raghu, Bengio and Vinyals, 2020).
"""

from memmeta.algorithms.unrolled import backward

__all__ = ["backward"]
