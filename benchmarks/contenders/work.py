"""The computation that is compared, and identical starting points for all contenders."""

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
    """The computation that is compared."""

    run: RunConfig
    """Config for memmeta's ANIL."""
    image_size: int
    """Height and width of images."""
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image."""
        return 3, self.image_size, self.image_size

    def changed(self, **learner: object) -> "Setting":
        """This setting with other learner fields.

        Raises:
            InputError: the learner config is not valid.
        """
        values = self.run.model_dump()
        values["learner"] |= learner
        return replace(self, run=parse(RunConfig, values, "options"))


class Work:
    """Network, head and tasks of one peer; a method adds to the `.grad` of the parameters.

    Attributes:
        network: backbone of PyTorch's layers, with parameters theta.
        head: head with parameters phi^0, on features divided by the square root of their number.
        learner: config of the adaptation.
        episodes: the tasks, with images in the network's memory format.
    """

    def __init__(self, setting: Setting, channels_last: bool = False) -> None:
        self.learner = setting.run.learner
        options = {"device": setting.device, "dtype": setting.dtype}
        self.network: nn.Module = models.build_backbone(self.learner, setting.shape).to(**options)
        *weights, top = start(setting)
        self.head = nn.Linear(top.shape[1] - 1, len(top), **options)
        copy(weights, self.network.parameters())
        copy([top[:, :-1], top[:, -1]], self.head.parameters())
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.episodes = random_episodes(setting, channels_last)

    @property
    def tasks(self) -> Iterator[Sequence[Tensor]]:
        """Support images and labels, query images and labels of each task."""
        return zip(*self.episodes, strict=True)

    @property
    def steps(self) -> range:
        """The inner steps."""
        return range(self.learner.inner_steps)

    def features(self, images: Tensor) -> Tensor:
        """The input of the head."""
        return self.network(images) / math.sqrt(self.head.in_features)

    def support_loss(self, scores: Tensor, labels: Tensor, adapted: Iterable[Tensor]) -> Tensor:
        """Cross-entropy plus a ridge penalty on all adapted parameters."""
        squares = sum(value.square().sum() for value in adapted)
        return F.cross_entropy(scores, labels) + 0.5 * self.learner.ridge * squares

    def query_backward(self, scores: Tensor, labels: Tensor) -> None:
        """Add the gradient of a task's contribution to the mean query loss."""
        (F.cross_entropy(scores, labels) / self.learner.task_batch).backward()


class Whole(nn.Module):
    """Network and head as one module, for MAML."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.network, self.head = work.network, work.head

    def forward(self, images: Tensor) -> Tensor:
        """Class scores."""
        return self.head(self.network(images) / math.sqrt(self.head.in_features))


def start(setting: Setting) -> list[Tensor]:
    """Fixed initial weights: the network's, then the head's with the bias as last column."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.build_model(setting.run.learner, setting.shape, setting.run.data.ways)
        *weights, top = (parameter.detach().to(setting.dtype) for parameter in model.parameters())
        return [*weights, 0.1 * torch.randn_like(top)]


def copy(values: Iterable[Tensor], parameters: Iterable[nn.Parameter]) -> None:
    """Copy values into parameters."""
    with torch.no_grad():
        for value, parameter in zip(values, parameters, strict=True):
            parameter.copy_(value)


def random_episodes(setting: Setting, channels_last: bool) -> Episodes:
    """Fixed tasks with images of random numbers, on the device of the setting."""
    tasks = setting.run.learner.task_batch
    layout = setting.shape, setting.dtype, setting.device, channels_last
    return _random_tasks(setting.run.data, tasks, *layout)


@cache
def _random_tasks(
    data: DataConfig,
    tasks: int,
    shape: Sequence[int],
    dtype: torch.dtype,
    device: str,
    channels_last: bool,
) -> Episodes:
    generator = torch.Generator().manual_seed(0)
    tensors = []
    for count in (data.shots, data.queries):
        images = torch.randn(tasks, data.ways * count, *shape, generator=generator).to(dtype)
        if channels_last:
            images = images.movedim(2, -1).contiguous().movedim(-1, 2)
        labels = torch.arange(data.ways).repeat_interleave(count)
        tensors += [images.to(device), labels.expand(tasks, -1).to(device)]
    return Episodes(*tensors)
