"""A model adapted to one task, which predicts any number of query sets."""

import torch
from torch import Tensor, nn

from memmeta.algorithms import inner_loop, problems
from memmeta.algorithms.problems import Problem
from memmeta.config import LearnerConfig
from memmeta.data.episodes import Episodes
from memmeta.networks import chunks
from memmeta.networks.models import MetaModel
from memmeta.networks.norms import mixes_images


class Adapted:
    """The parameters phi_K of one task. Scores equal those of `inner_loop.predict`.

    Attributes:
        mixes_examples: whether the scores of an example depend on those predicted with it, as with
            norm `batch`.
        at_once: number of examples that pass through the network together.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: MetaModel,
        support: Tensor,
        labels: Tensor,
        config: LearnerConfig,
        at_once: int,
    ) -> None:
        """Take K gradient steps on the support loss.

        Args:
            model: the model. It is not modified.
            support: stored support examples, [n, ...].
            labels: class indices or values, [n], on the device of the model.
            config: the number of steps, the step size and the ridge.
            at_once: number of examples that may pass through the network together. A support set
                whose images the norm mixes always does.
        """
        self.mixes_examples = mixes_images(nn.ModuleList([model.backbone, model.head]))
        self.at_once = at_once
        self._model = model
        self._config = config
        self._labels = labels[None]
        self._support = self._features(support)
        problem = self._problem(self._support)
        self._phi = inner_loop.adapt(problem, model.initial_phi(1), config)

    @torch.no_grad()
    def scores(self, query: Tensor) -> Tensor:
        """Scores of stored query examples [n, ...]: [n, outputs], on the CPU.

        If there are more than `at_once`, the sets of `groups` are predicted one after another.
        """
        scores = torch.empty(len(query), self._model.head.outputs)
        for group in groups(len(query), self.at_once):
            problem = self._problem(self._features(query[group]))
            scores[group] = problem.query_scores(self._phi)[0].cpu()
        return scores

    def _features(self, examples: Tensor) -> Tensor:
        """The backbone's output, [1, n, ...]."""
        examples = examples[None].to(self._labels.device)
        return chunks.features(self._model, examples, self._config.chunk or self.at_once)

    def _problem(self, query: Tensor) -> Problem:
        # Labels of the query set are for its loss, which prediction does not need.
        episodes = Episodes(self._support, self._labels, query, self._labels[:, :0])
        return problems.inner_problem(self._model, self._support, query, episodes, self._config)


def groups(count: int, most: int) -> list[slice]:
    """Divide examples into groups of about equal size.

    A group contains every k-th example, so that sorted examples are mixed. With norm `batch` the
    statistics of each group are then similar to those of all examples.

    Args:
        count: number of examples.
        most: size of the largest group, at least 1.

    Examples:
        >>> groups(5, most=3)
        [slice(0, None, 2), slice(1, None, 2)]
    """
    number = -(-count // most)
    return [slice(first, None, number) for first in range(number)]
