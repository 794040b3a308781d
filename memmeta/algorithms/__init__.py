"""Ways to a hypergradient, one module each, behind one interface."""

from typing import Protocol

from torch import Tensor, nn

from memmeta.algorithms import memory_reduced
from memmeta.algorithms.diagnostics import Diagnostics
from memmeta.config import LearnerConfig
from memmeta.data import Episodes


class Algorithm(Protocol):
    """What each module offers. Images are float, [tasks, n, channels, height, width]."""

    def backward(
        self, backbone: nn.Module, episodes: Episodes, ways: int, config: LearnerConfig
    ) -> Diagnostics:
        """Add the mean hypergradient of the tasks to `.grad` of the backbone's parameters."""

    def predict(
        self, backbone: nn.Module, episodes: Episodes, ways: int, config: LearnerConfig
    ) -> Tensor:
        """Class scores of the query images after adaptation, [tasks, n, ways]. Keeps no graph."""


ALGORITHMS: dict[str, Algorithm] = {"memory_reduced": memory_reduced}

__all__ = ["ALGORITHMS", "Algorithm", "Diagnostics"]
