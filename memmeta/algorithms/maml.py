"""MAML: every layer is adapted, from parameters that are learned.

*Model-Agnostic Meta-Learning* (Finn, Abbeel and Levine, 2017). The whole network is the head
(see `memmeta.networks.models.build`), so that the inner loop adapts all of it, in prediction too.
"""

from memmeta.algorithms.unrolled import backward

__all__ = ["backward"]
