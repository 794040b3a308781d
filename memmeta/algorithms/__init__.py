"""Ways to a hypergradient, one module each, behind one interface."""

from typing import Protocol

from memmeta.algorithms import anil, itd_bio, maml, memory_reduced
from memmeta.algorithms.inner_loop import predict
from memmeta.algorithms.outcome import Diagnostics, Outcome, Solution
from memmeta.config import LearnerConfig
from memmeta.data import Episodes
from memmeta.networks.models import MetaModel


class Algorithm(Protocol):
    """What each module offers."""

    def backward(
        self,
        model: MetaModel,
        episodes: Episodes,
        config: LearnerConfig,
        start: Solution | None = None,
    ) -> Outcome:
        """Add the mean hypergradient of the tasks to `.grad` of the parameters that are learned.

        Args:
            model: as `memmeta.networks.models.build` makes it for `config`.
            episodes: as the data set stores them; `model.to_input` makes them network input.
            config: says how.
            start: a warm start, instead of phi^0 and v = 0.
        """


ALGORITHMS: dict[str, Algorithm] = {
    "memory_reduced": memory_reduced,
    "itd_bio": itd_bio,
    "anil": anil,
    "maml": maml,
}

__all__ = ["ALGORITHMS", "Algorithm", "Diagnostics", "Outcome", "Solution", "predict"]
