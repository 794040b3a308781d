"""Algorithms that compute hypergradients."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from memmeta.registry import ImportPath, Registry, adopt_as, import_object

if TYPE_CHECKING:
    from memmeta.algorithms.outcome import Outcome, Solution
    from memmeta.config import LearnerConfig
    from memmeta.data.episodes import Episodes
    from memmeta.networks.models import MetaModel


class Backward(Protocol):
    """The function that computes the hypergradient of an algorithm."""

    def __call__(
        self,
        model: "MetaModel",
        episodes: "Episodes",
        config: "LearnerConfig",
        start: "Solution | None" = None,
    ) -> "Outcome":
        """Add the mean hypergradient of the tasks to `.grad` of the learned parameters.

        Args:
            model: built by `memmeta.networks.models.build_model` for `config`.
            episodes: in the form the data set stores; `model.to_input` converts them.
            config: the settings.
            start: a warm start; None: start at phi^0 and v = 0.
        """


@dataclass(frozen=True)
class Algorithm:
    """An algorithm, and the properties that other settings depend on."""

    path: ImportPath
    """A `Backward` function."""
    unrolls: bool = False
    """Whether it differentiates through the inner steps, instead of solving a linear system at
    their end."""
    learns_initial_head: bool = False
    """Whether it learns phi^0. Otherwise phi^0 is a fixed starting point."""
    adapts_backbone: bool = False
    """Whether the inner loop adapts the whole network. It then processes one task at a time."""

    @property
    def backward(self) -> Backward:
        """The function, imported on first use."""
        return cast(Backward, import_object(self.path))

    @property
    def can_recompute_features(self) -> bool:
        """Whether it supports `feature_reuse: false`."""
        return self.unrolls and not self.adapts_backbone


_UNROLLED = ImportPath("memmeta.algorithms.unrolled:backward")

ALGORITHMS: Registry[Algorithm] = Registry(
    "algorithm",
    {
        # The paper's Algorithm 1.
        "memory_reduced": Algorithm(ImportPath("memmeta.algorithms.memory_reduced:backward")),
        # Ji, Yang and Liang, *Bilevel Optimization: Convergence Analysis and Enhanced Design*,
        # 2021: iterative differentiation from a fixed phi^0.
        "itd_bio": Algorithm(_UNROLLED, unrolls=True),
        # Raghu, Raghu, Bengio and Vinyals, *Rapid Learning or Feature Reuse?*, 2020.
        "anil": Algorithm(_UNROLLED, unrolls=True, learns_initial_head=True),
        # Finn, Abbeel and Levine, *Model-Agnostic Meta-Learning*, 2017.
        "maml": Algorithm(_UNROLLED, unrolls=True, learns_initial_head=True, adapts_backbone=True),
    },
    group="memmeta.algorithms",
    adopt=adopt_as(Algorithm),
)
"""Algorithms by the name that configs use."""
