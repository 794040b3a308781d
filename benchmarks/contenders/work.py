"""What is computed, and everyone's own copy of the starting point."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memmeta.config import DataConfig, RunConfig, parse
from memmeta.data.episodes import Episodes
from memmeta.networks import models


@dataclass(frozen=True)
class Setting:
    """What is computed."""

    run: RunConfig
    """As memmeta's ANIL has it."""
    image_size: int
    """Height and width."""
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image."""
        return 3, self.image_size, self.image_size

    def changed(self, **learner: object) -> "Setting":
        """With another learner.

        Raises:
            InputError: there is no such learner.
        """
        values = self.run.model_dump()
        values["learner"] |= learner
        return replace(self, run=parse(RunConfig, values, "options"))


class Work:
    """One contender's network, head and tasks; a method adds to the `.grad` of the parameters.

    Attributes:
        network: theta, of PyTorch's layers.
        head: phi^0, on features divided by the root of their number.
        learner: how long to adapt, and how.
        episodes: the tasks, with images as the network gets them.
    """

    def __init__(self, setting: Setting, channels_last: bool = False) -> None:
        self.learner = setting.run.learner
        place = {"device": setting.device, "dtype": setting.dtype}
        self.network: nn.Module = models.build_backbone(self.learner, setting.shape).to(**place)
        *weights, top = start(setting)
        self.head = nn.Linear(top.shape[1] - 1, len(top), **place)
        copy(weights, self.network.parameters())
        copy([top[:, :-1], top[:, -1]], self.head.parameters())
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.episodes = random_episodes(setting, channels_last)

    @property
    def tasks(self) -> Iterator[Sequence[Tensor]]:
        """Of each: support images and labels, query images and labels."""
        return zip(*self.episodes, strict=True)

    @property
    def steps(self) -> range:
        """The inner steps."""
        return range(self.learner.inner_steps)

    def features(self, images: Tensor) -> Tensor:
        """What the head gets."""
        return self.network(images) / math.sqrt(self.head.in_features)

    def support_loss(self, scores: Tensor, labels: Tensor, adapted: Iterable[Tensor]) -> Tensor:
        """Cross-entropy, and the ridge on all that is adapted."""
        squares = sum(value.square().sum() for value in adapted)
        return F.cross_entropy(scores, labels) + 0.5 * self.learner.ridge * squares

    def query_backward(self, scores: Tensor, labels: Tensor) -> None:
        """Add the gradient of a task's part of the mean query loss."""
        (F.cross_entropy(scores, labels) / self.learner.task_batch).backward()


class Whole(nn.Module):
    """Network and head, as MAML adapts them."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.network, self.head = work.network, work.head

    def forward(self, images: Tensor) -> Tensor:
        """Scores."""
        return self.head(self.network(images) / math.sqrt(self.head.in_features))


def start(setting: Setting) -> list[Tensor]:
    """The network's weights, then the head's with its bias as last column; always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.build_model(setting.run.learner, setting.shape, setting.run.data.ways)
        *weights, top = (parameter.detach().to(setting.dtype) for parameter in model.parameters())
        return [*weights, 0.1 * torch.randn_like(top)]


def copy(values: Iterable[Tensor], parameters: Iterable[nn.Parameter]) -> None:
    """Into the parameters."""
    with torch.no_grad():
        for value, parameter in zip(values, parameters, strict=True):
            parameter.copy_(value)


def random_episodes(setting: Setting, channels_last: bool) -> Episodes:
    """The tasks, on the device that is measured."""
    tasks = setting.run.learner.task_batch
    at = setting.shape, setting.dtype, setting.device, channels_last
    return _random_tasks(setting.run.data, tasks, *at)


@cache
def _random_tasks(
    data: DataConfig,
    tasks: int,
    shape: Sequence[int],
    dtype: torch.dtype,
    device: str,
    channels_last: bool,
) -> Episodes:
    """Images of random numbers; always the same."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for count in (data.shots, data.queries):
        images = torch.randn(tasks, data.ways * count, *shape, generator=generator).to(dtype)
        if channels_last:
            images = images.movedim(2, -1).contiguous().movedim(-1, 2)
        labels = torch.arange(data.ways).repeat_interleave(count)
        parts += [images.to(device), labels.expand(tasks, -1).to(device)]
    return Episodes(*parts)
