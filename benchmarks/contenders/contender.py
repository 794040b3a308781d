"""The contenders: memmeta and its peers."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from contenders import methods
from contenders.methods import Method
from contenders.work import Setting, Work, copy, random_episodes, start
from memmeta.algorithms import ALGORITHMS
from memmeta.data.episodes import Episodes
from memmeta.errors import InputError
from memmeta.networks import models

PLAIN, PLAIN_CHANNELS_LAST = "plain ANIL", "plain ANIL, channels_last"


@dataclass(frozen=True)
class Contender:
    """An implementation of the meta-gradient."""

    name: str
    algorithm: str
    """memmeta's name of the algorithm, which determines the reference gradient."""
    ours: bool
    """Whether it is memmeta's."""
    method: Callable[[], object]
    """Adds the meta-gradient to the `.grad` of the parameters."""
    network: Sequence[nn.Parameter]
    """The backbone's parameters theta."""
    head: Sequence[nn.Parameter]
    """The head's initial parameters phi^0: weight and bias, or both in one."""
    episodes: Episodes
    """The tasks."""

    def __call__(self) -> None:
        """Compute the meta-gradient into `.grad`."""
        for parameter in (*self.network, *self.head):
            parameter.grad = None
        self.method()

    @property
    def device(self) -> torch.device:
        """Device of the computation."""
        return self.episodes.support.device

    def held(self) -> list[Tensor]:
        """Tensors that exist before the computation."""
        return [*self.network, *self.head, *self.episodes]

    def gradients(self) -> list[Tensor]:
        """Gradient of theta as a vector, and of phi^0 as a matrix if it is learned."""
        theta = torch.cat([_gradient(parameter).flatten() for parameter in self.network])
        phi = [_gradient(p).view(len(p), -1) for p in self.head if p.grad is not None]
        return [theta, torch.cat(phi, 1)] if phi else [theta]


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def from_peer(name: str, setting: Setting, method: Method) -> Contender:
    """A peer's method on a network of PyTorch's layers."""
    work = Work(setting, channels_last=name == PLAIN_CHANNELS_LAST)
    theta, phi = [*work.network.parameters()], [*work.head.parameters()]
    algorithm = setting.run.learner.algorithm
    return Contender(name, algorithm, False, partial(method, work), theta, phi, work.episodes)


def from_memmeta(name: str, setting: Setting) -> Contender:
    """Memmeta with the algorithm of the setting."""
    learner = setting.run.learner
    model = models.build_model(learner, setting.shape, setting.run.data.ways)
    model.to(setting.device, setting.dtype)
    copy(start(setting), model.parameters())
    # memmeta's data sets return images in channels_last.
    episodes = random_episodes(setting, channels_last=True)
    method = partial(ALGORITHMS[learner.algorithm].backward, model, episodes, learner)
    *theta, phi = model.parameters()
    return Contender(name, learner.algorithm, True, method, theta, [phi], episodes)


def all_contenders(setting: Setting, maml_steps: int, missing: Iterable[str]) -> list[Contender]:
    """All contenders in the order of the tables; our first one per algorithm is the reference.

    Args:
        setting: the computation, with memmeta's anil.
        maml_steps: K of MAML; 0 to exclude MAML.
        missing: libraries that are not available.
    """
    implicit = setting.changed(algorithm="memory_reduced")
    peers: list[tuple[str | None, str, Setting, Method]] = [
        ("learn2learn", "learn2learn ANIL", setting, methods.learn2learn_anil),
        ("torchopt", "TorchOpt MetaSGD ANIL", setting, methods.torchopt_anil),
        ("higher", "higher ANIL", setting, methods.higher_anil),
        (None, "torch.func ANIL, vmap", setting, methods.torch_func_anil),
        (None, PLAIN, setting, methods.plain_anil),
        (None, PLAIN_CHANNELS_LAST, setting, methods.plain_anil),
        ("torchopt", "TorchOpt implicit", implicit, methods.torchopt_implicit),
    ]
    ours = [("memmeta anil", setting), ("memory_reduced", implicit)]
    ours += [
        (f"memory_reduced, chunk {chunk}", implicit.changed(chunk=chunk))
        for chunk in _chunks(implicit)
    ]
    if maml_steps:
        maml = setting.changed(algorithm="maml", inner_steps=maml_steps)
        peers += [
            ("learn2learn", "learn2learn MAML", maml, methods.learn2learn_maml),
            (None, "torch.func MAML", maml, methods.torch_func_maml),
        ]
        ours.append(("memmeta maml", maml))
    present = [peer[1:] for peer in peers if peer[0] not in missing]
    return [*(from_peer(*peer) for peer in present), *(from_memmeta(*own) for own in ours)]


def _chunks(setting: Setting) -> list[int]:
    """Chunk sizes: one task, and the smallest set of a task that the norm allows."""
    data = setting.run.data
    support, query = data.ways * data.shots, data.ways * data.queries
    for size in sorted((support, query)):
        with suppress(InputError):
            setting.changed(chunk=size)
            return [support + query, size]
    return [support + query]
