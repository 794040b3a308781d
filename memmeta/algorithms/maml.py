"""MAML: every layer is adapted, from parameters that are learned.

*Model-Agnostic Meta-Learning* (Finn, Abbeel and Levine, 2017). The whole network is the head
(see `memmeta.models.build`), so that the inner loop, and prediction by it, adapts all of it.
"""

from memmeta.algorithms.unrolled import backward

__all__ = ["backward"]
