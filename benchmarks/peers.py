"""A meta-step of memmeta beside the same work done with other libraries and in plain PyTorch.

    python benchmarks/peers.py

The work is the gradient of ANIL's mean query loss after K inner steps, without optimiser and data.
All have the same weights, images and losses, and the same Conv4: others as PyTorch's layers,
memmeta in its own way. They run in one process and in turn, so that what else the machine does
meets all. The floor is one forward and one backward pass of that network, as layers, over the same
images, a task at a time.

learn2learn, TorchOpt and higher are installed by the first run, into an environment of their own;
what cannot be installed or imported is named and left out.

Before anything is timed the gradients are compared, in float64 and with small images: in float32
a maximum or a ReLU next to a tie goes the other way now and then. ANIL's have to equal memmeta's
`anil`, MAML's its `maml`. memory_reduced does not learn phi^0 and estimates the gradient of a
solved inner problem, as TorchOpt's implicit one does: these have to equal each other, and ANIL's
for theta where both have converged. Whoever differs is named and not timed.
"""

import gc
import importlib
import importlib.metadata
import io
import json
import math
import re
import shlex
import subprocess
import sys
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles

import click
import torch
import torch.nn.functional as F
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call, vmap

from memmeta import backbones, models, provenance
from memmeta.algorithms import ALGORITHMS
from memmeta.command_line import chosen_device
from memmeta.config import DataConfig, RunConfig, parse
from memmeta.data import Episodes
from memmeta.data.downloads import torchvision_datasets
from memmeta.errors import InputError
from memmeta.memory import measure_peak
from memmeta.runtime import configure_process

MIB = 2**20
ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = Path(__file__).with_suffix("") / "requirements.txt"
LIBRARIES = ("learn2learn", "torchopt", "higher")

FLOOR = "floor"
PLAIN, PLAIN_CHANNELS_LAST = "plain ANIL", "plain ANIL, channels_last"
INNER_LR = 0.1
RIDGE = 0.1
AGREEMENT = 1e-8
"""The most that a gradient may differ from its reference, relative and in float64."""
CHECKED_SIZE, CHECKED_TASKS = 28, 2
"""Height and width of images, and tasks, with which gradients are compared, at most."""
CONVERGED = {"inner_steps": 300, "cg_steps": 300, "ridge": 1.0}
"""Where ANIL's gradient for theta and memory_reduced's are the same."""
_WARM_UP = 2
"""Turns before the first that is timed."""


# Everyone's own copy of the starting point.


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
        self.network: nn.Module = backbones.build(self.learner, setting.shape).to(**place)
        *weights, top = _start(setting)
        self.head = nn.Linear(top.shape[1] - 1, len(top), **place)
        _copy(weights, self.network.parameters())
        _copy([top[:, :-1], top[:, -1]], self.head.parameters())
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.episodes = _episodes(setting, channels_last)

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


def _start(setting: Setting) -> list[Tensor]:
    """The network's weights, then the head's with its bias as last column; always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.build(setting.run.learner, setting.shape, setting.run.data.outputs)
        *weights, top = (parameter.detach().to(setting.dtype) for parameter in model.parameters())
        return [*weights, 0.1 * torch.randn_like(top)]


def _copy(values: Iterable[Tensor], parameters: Iterable[nn.Parameter]) -> None:
    with torch.no_grad():
        for value, parameter in zip(values, parameters, strict=True):
            parameter.copy_(value)


def _episodes(setting: Setting, channels_last: bool) -> Episodes:
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


# Everyone's way to do it. What is imported within a function is there after `install` alone.


def floor(work: Work) -> None:
    """Nothing but the network."""
    for support, _, query, _ in work.tasks:
        (work.network(support).sum() + work.network(query).sum()).backward()


def learn2learn_anil(work: Work) -> None:
    """MAML on the head, a task at a time, as in the library's example of ANIL."""
    import learn2learn

    head = learn2learn.algorithms.MAML(work.head, lr=work.learner.inner_lr)
    for support, labels, query, query_labels in work.tasks:
        x, q = work.features(support), work.features(query)
        learner = head.clone()
        for _ in work.steps:
            learner.adapt(work.support_loss(learner(x), labels, learner.parameters()))
        work.query_backward(learner(q), query_labels)


def torchopt_anil(work: Work) -> None:
    """MetaSGD on the head, a task at a time, as in the library's tutorial."""
    import torchopt

    optimizer = torchopt.MetaSGD(work.head, lr=work.learner.inner_lr)
    places = (work.head, optimizer)
    start = [torchopt.extract_state_dict(place, by="reference") for place in places]
    for support, labels, query, query_labels in work.tasks:
        x, q = work.features(support), work.features(query)
        for _ in work.steps:
            optimizer.step(work.support_loss(work.head(x), labels, work.head.parameters()))
        work.query_backward(work.head(q), query_labels)
        for place, state in zip(places, start, strict=True):
            torchopt.recover_state_dict(place, state)


def higher_anil(work: Work) -> None:
    """A differentiable SGD on the head, a task at a time."""
    import higher

    optimizer = torch.optim.SGD(work.head.parameters(), lr=work.learner.inner_lr)
    for support, labels, query, query_labels in work.tasks:
        x, q = work.features(support), work.features(query)
        with higher.innerloop_ctx(work.head, optimizer, copy_initial_weights=False) as context:
            head, inner = context
            for _ in work.steps:
                inner.step(work.support_loss(head(x), labels, head.parameters()))
            work.query_backward(head(q), query_labels)


def torch_func_anil(work: Work) -> None:
    """Nested `torch.func.grad`, with `vmap` over tasks."""
    theta, phi = _values(work.network), _values(work.head)
    scale = 1 / math.sqrt(work.head.in_features)

    def inner_loss(phi: dict[str, Tensor], x: Tensor, labels: Tensor) -> Tensor:
        return work.support_loss(functional_call(work.head, phi, (x,)), labels, [*phi.values()])

    def query_loss(theta: dict[str, Tensor], phi: dict[str, Tensor], *task: Tensor) -> Tensor:
        support, labels, query, query_labels = task
        x, q = (scale * functional_call(work.network, theta, (i,)) for i in (support, query))
        for _ in work.steps:
            gradient = torch.func.grad(inner_loss)(phi, x, labels)
            phi = {
                name: value - work.learner.inner_lr * gradient[name] for name, value in phi.items()
            }
        return F.cross_entropy(functional_call(work.head, phi, (q,)), query_labels)

    def mean_loss(theta: dict[str, Tensor], phi: dict[str, Tensor]) -> Tensor:
        each = vmap(query_loss, in_dims=(None, None, 0, 0, 0, 0))
        return each(theta, phi, *work.episodes).mean()

    gradients = torch.func.grad(mean_loss, argnums=(0, 1))(theta, phi)
    for module, gradient in zip((work.network, work.head), gradients, strict=True):
        _add(module, gradient)


def _values(module: nn.Module) -> dict[str, Tensor]:
    """Without which `torch.func.grad` would leave a graph of its own gradient."""
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def _add(module: nn.Module, gradients: Mapping[str, Tensor]) -> None:
    for name, parameter in module.named_parameters():
        before = parameter.grad
        parameter.grad = gradients[name] if before is None else before + gradients[name]


def plain_anil(work: Work) -> None:
    """As one would write it: features once a task, and a differentiable loop on the head."""
    for support, labels, query, query_labels in work.tasks:
        x, q = work.features(support), work.features(query)
        phi = list(work.head.parameters())
        for _ in work.steps:
            loss = work.support_loss(F.linear(x, *phi), labels, phi)
            gradients = torch.autograd.grad(loss, phi, create_graph=True)
            phi = [
                value - work.learner.inner_lr * g for value, g in zip(phi, gradients, strict=True)
            ]
        work.query_backward(F.linear(q, *phi), query_labels)


def torchopt_implicit(work: Work) -> None:
    """The implicit gradient of the head's solution by N conjugate-gradient iterations."""
    from torchopt.diff.implicit import custom_root
    from torchopt.linear_solve import solve_cg

    Phi = tuple[Tensor, Tensor]

    def inner_loss(phi: Phi, x: Tensor, labels: Tensor) -> Tensor:
        return work.support_loss(F.linear(x, *phi), labels, phi)

    gradient = torch.func.grad(inner_loss)
    cg = solve_cg(maxiter=work.learner.cg_steps, rtol=0.0)

    @custom_root(gradient, argnums=1, solve=cg)
    def solution(phi: Phi, x: Tensor, labels: Tensor) -> Phi:
        for _ in work.steps:
            weight, bias = gradient(phi, x, labels)
            phi = phi[0] - work.learner.inner_lr * weight, phi[1] - work.learner.inner_lr * bias
        return phi

    start = work.head.weight.detach(), work.head.bias.detach()
    for support, labels, query, query_labels in work.tasks:
        x, q = work.features(support), work.features(query)
        work.query_backward(F.linear(q, *solution(start, x, labels)), query_labels)


def learn2learn_maml(work: Work) -> None:
    """MAML on everything, a task at a time."""
    import learn2learn

    whole = learn2learn.algorithms.MAML(Whole(work), lr=work.learner.inner_lr)
    for support, labels, query, query_labels in work.tasks:
        learner = whole.clone()
        for _ in work.steps:
            learner.adapt(work.support_loss(learner(support), labels, learner.parameters()))
        work.query_backward(learner(query), query_labels)


def torch_func_maml(work: Work) -> None:
    """Nested `torch.func.grad`, a task at a time: each has convolutions of its own."""
    whole = Whole(work)
    start = _values(whole)

    def inner_loss(theta: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return work.support_loss(
            functional_call(whole, theta, (images,)), labels, [*theta.values()]
        )

    def query_loss(theta: dict[str, Tensor], *task: Tensor) -> Tensor:
        support, labels, query, query_labels = task
        for _ in work.steps:
            gradient = torch.func.grad(inner_loss)(theta, support, labels)
            theta = {
                name: value - work.learner.inner_lr * gradient[name]
                for name, value in theta.items()
            }
        loss = F.cross_entropy(functional_call(whole, theta, (query,)), query_labels)
        return loss / work.learner.task_batch

    for task in work.tasks:
        _add(whole, torch.func.grad(query_loss)(start, *task))


# All of them.

Method = Callable[[Work], None]


@dataclass(frozen=True)
class Contender:
    """Someone who does the work."""

    name: str
    algorithm: str
    """As memmeta calls it: with what the gradient is compared."""
    ours: bool
    method: Callable[[], object]
    """Adds to the gradients."""
    network: Sequence[nn.Parameter]
    """Theta."""
    head: Sequence[nn.Parameter]
    """phi^0: weight and bias, or both in one."""
    episodes: Episodes

    def __call__(self) -> None:
        """Put the gradient into `.grad`."""
        for parameter in (*self.network, *self.head):
            parameter.grad = None
        self.method()

    @property
    def device(self) -> torch.device:
        """Where the work is done."""
        return self.episodes.support.device

    def held(self) -> list[Tensor]:
        """What is there before."""
        return [*self.network, *self.head, *self.episodes]

    def gradients(self) -> list[Tensor]:
        """Of theta, a vector, and of phi^0, a matrix, where it is learned."""
        theta = torch.cat([_gradient(parameter).flatten() for parameter in self.network])
        phi = [_gradient(p).view(len(p), -1) for p in self.head if p.grad is not None]
        return [theta, torch.cat(phi, 1)] if phi else [theta]


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _peer(name: str, setting: Setting, method: Method) -> Contender:
    work = Work(setting, channels_last=name == PLAIN_CHANNELS_LAST)
    theta, phi = [*work.network.parameters()], [*work.head.parameters()]
    algorithm = setting.run.learner.algorithm
    return Contender(name, algorithm, False, partial(method, work), theta, phi, work.episodes)


def _ours(name: str, setting: Setting) -> Contender:
    learner = setting.run.learner
    model = models.build(learner, setting.shape, setting.run.data.outputs)
    model.to(setting.device, setting.dtype)
    _copy(_start(setting), model.parameters())
    # As memmeta's data sets give them.
    episodes = _episodes(setting, channels_last=True)
    method = partial(ALGORITHMS[learner.algorithm].backward, model, episodes, learner)
    *theta, phi = model.parameters()
    return Contender(name, learner.algorithm, True, method, theta, [phi], episodes)


def everyone(setting: Setting, maml_steps: int, missing: Iterable[str]) -> list[Contender]:
    """All who do the work, in the order of the tables; the first of ours is the reference.

    Args:
        setting: the work, with memmeta's anil.
        maml_steps: K of MAML; 0: without it.
        missing: libraries that are not there.
    """
    implicit = setting.changed(algorithm="memory_reduced")
    peers: list[tuple[str | None, str, Setting, Method]] = [
        ("learn2learn", "learn2learn ANIL", setting, learn2learn_anil),
        ("torchopt", "TorchOpt MetaSGD ANIL", setting, torchopt_anil),
        ("higher", "higher ANIL", setting, higher_anil),
        (None, "torch.func ANIL, vmap", setting, torch_func_anil),
        (None, PLAIN, setting, plain_anil),
        (None, PLAIN_CHANNELS_LAST, setting, plain_anil),
        ("torchopt", "TorchOpt implicit", implicit, torchopt_implicit),
    ]
    ours = [("memmeta anil", setting), ("memory_reduced", implicit)]
    ours += [
        (f"memory_reduced, chunk {chunk}", implicit.changed(chunk=chunk))
        for chunk in _chunks(implicit)
    ]
    if maml_steps:
        maml = setting.changed(algorithm="maml", inner_steps=maml_steps)
        peers += [
            ("learn2learn", "learn2learn MAML", maml, learn2learn_maml),
            (None, "torch.func MAML", maml, torch_func_maml),
        ]
        ours.append(("memmeta maml", maml))
    present = [peer[1:] for peer in peers if peer[0] not in missing]
    return [*(_peer(*peer) for peer in present), *(_ours(*own) for own in ours)]


def _chunks(setting: Setting) -> list[int]:
    """A task, and the least that the norm allows of a query and a support set."""
    data = setting.run.data
    support, query = data.ways * data.shots, data.ways * data.queries
    for part in sorted((support, query)):
        with suppress(InputError):
            setting.changed(chunk=part)
            return [support + query, part]
    return [support + query]


def compare(setting: Setting, maml_steps: int, left_out: dict[str, str]) -> dict[str, float]:
    """Of each, by name: how far its gradient is from its reference; small images, in float64.

    Args:
        setting: the work.
        maml_steps: K of MAML.
        left_out: libraries that are not there, with reasons. Who differs or fails is added.
    """
    contenders = everyone(small(setting), maml_steps, left_out)
    for contender in contenders:
        try:
            contender()
        except Exception as error:  # whatever a library does that is older than this PyTorch
            if contender.ours:
                raise
            left_out[contender.name] = f"fails: {_one_line(error)}"
    references = {c.algorithm: c for c in reversed(contenders) if c.ours}
    found = {
        c.name: _difference(c, references[c.algorithm])
        for c in contenders
        if c.name not in left_out
    }
    for name, difference in found.items():
        # Not >, which NaN would pass.
        if not difference <= AGREEMENT:
            left_out[name] = f"its gradient differs by {difference:.0e}"
    return found


def small(setting: Setting) -> Setting:
    """What gradients are compared on."""
    tasks = min(CHECKED_TASKS, setting.run.learner.task_batch)
    size = min(CHECKED_SIZE, setting.image_size)
    return replace(setting.changed(task_batch=tasks), image_size=size, dtype=torch.float64)


def _difference(contender: Contender, reference: Contender) -> float:
    """Relative, of theta and of phi^0 where the reference learns it: the larger one."""
    mine, right = contender.gradients(), reference.gradients()
    if len(mine) < len(right):
        return math.inf
    pairs = zip(mine, right, strict=False)
    # Python's max may pass over NaN, PyTorch's does not.
    return float(torch.stack([(a - b).norm() / b.norm() for a, b in pairs]).max())


def converged_difference(setting: Setting) -> float:
    """How far memory_reduced's gradient for theta is from ANIL's, where both have converged."""
    anil = _ours("", small(setting.changed(**CONVERGED)))
    reduced = _ours("", small(setting.changed(**CONVERGED, algorithm="memory_reduced")))
    anil()
    reduced()
    return _difference(anil, reduced)


# Measuring.


@dataclass(frozen=True)
class Row:
    """One contender, measured."""

    name: str
    algorithm: str
    ours: bool
    seconds: float
    """Median."""
    over_floor: float
    """Median of the ratios of a turn."""
    over_floor_quartiles: tuple[float, float]
    over_fastest: float
    """Likewise, to the fastest peer: MAML's among MAML's, one of all others for the rest."""
    over_fastest_quartiles: tuple[float, float]
    peak_mib: float
    """Of live tensors, parameters and images among them."""
    peak_over_plain: float
    """To the peak of `PLAIN`."""
    difference: float | None
    """Of the gradient from its reference, relative, in float64; None of the floor."""


def time_in_turn(contenders: Sequence[Contender], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, `repeats` times; in every turn another one begins."""
    errors = Console(stderr=True)
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    turns = track(
        range(-_WARM_UP, repeats), "measuring", console=errors, transient=True,
        disable=not errors.is_terminal,
    )  # fmt: skip
    for turn in turns:
        first = turn % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            _wait(contender)
            begun = time.perf_counter()
            contender()
            _wait(contender)
            if turn >= 0:
                seconds[contender.name].append(time.perf_counter() - begun)
    return seconds


def _wait(contender: Contender) -> None:
    if contender.device.type == "cuda":
        torch.cuda.synchronize(contender.device)


def peak(contender: Contender) -> int:
    """Bytes of live tensors at most."""
    gc.collect()
    # A GPU's count is of all that is there, those of the other contenders too.
    others = 0
    if contender.device.type == "cuda":
        own = sum(tensor.nbytes for tensor in contender.held())
        others = torch.cuda.memory_allocated(contender.device) - own
    _, most = measure_peak(contender, contender.held, contender.device)
    return most - others


def measure(
    contenders: Sequence[Contender], repeats: int, plain_peak: int, found: Mapping[str, float]
) -> list[Row]:
    """A row each.

    Args:
        contenders: who is timed in turn; the first is the floor, and others than memmeta are there.
        repeats: how often.
        plain_peak: bytes, of `PLAIN`.
        found: how far gradients are from their references.
    """
    peaks = [peak(contender) for contender in contenders]
    seconds = time_in_turn(contenders, repeats)
    peers = (seconds[contender.name] for contender in contenders[1:] if not contender.ours)
    fastest = min(peers, key=median)
    return [
        Row(
            contender.name,
            contender.algorithm,
            contender.ours,
            median(seconds[contender.name]),
            *_ratios(seconds[contender.name], seconds[contenders[0].name]),
            *_ratios(seconds[contender.name], fastest),
            most / MIB,
            most / plain_peak,
            found.get(contender.name),
        )
        for contender, most in zip(contenders, peaks, strict=True)
    ]


def measure_all(
    setting: Setting,
    maml_steps: int,
    left_out: Mapping[str, str],
    repeats: int,
    found: Mapping[str, float],
) -> dict[str, list[Row]]:
    """The rows of table anil and of table maml: MAML takes much longer, and turns of its own.

    A table with nobody to compare with is left out.
    """
    contenders = [c for c in everyone(setting, maml_steps, left_out) if c.name not in left_out]
    base, plain = _peer(FLOOR, setting, floor), _peer(PLAIN, setting, plain_anil)
    parts: dict[str, list[Contender]] = {"anil": [], "maml": []}
    for contender in contenders:
        parts["maml" if contender.algorithm == "maml" else "anil"].append(contender)
    return {
        name: measure([base, *part], repeats, peak(plain), found)
        for name, part in parts.items()
        if any(not contender.ours for contender in part)
    }


def _ratios(own: Sequence[float], others: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Median and quartiles."""
    ratios = [a / b for a, b in zip(own, others, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return median(ratios), (low, high)


def table(rows: Sequence[Row], title: str) -> Table:
    """A line a contender; the first is the floor."""
    fastest = min((row for row in rows[1:] if not row.ours), key=lambda row: row.seconds)
    caption = f"÷ peer: {fastest.name}; ÷ plain: memory, {PLAIN}"
    result = Table(
        title=title, title_justify="left", caption=caption, caption_justify="left",
        box=box.SIMPLE_HEAD, padding=0,
    )  # fmt: skip
    result.add_column("", no_wrap=True)
    for heading in ("s", "÷ floor", "quartiles", "÷ peer", "quartiles", "MiB", "÷ plain"):
        result.add_column(heading, justify="right", no_wrap=True)
    for row, following in pairwise([*rows, None]):
        result.add_row(
            row.name,
            f"{row.seconds:.3f}",
            f"{row.over_floor:.2f}",
            "{:.2f}-{:.2f}".format(*row.over_floor_quartiles),
            f"{row.over_fastest:.2f}",
            "{:.2f}-{:.2f}".format(*row.over_fastest_quartiles),
            f"{row.peak_mib:.0f}",
            f"{row.peak_over_plain:.2f}",
            end_section=bool(following and following.ours and not row.ours),
        )
    return result


# The libraries.


def install(environment: Path) -> dict[str, str]:
    """Put the libraries into `environment`, made if need be, and on this process' path.

    There they come after the project's own packages, so that all share one PyTorch.

    Returns:
        What could not be installed, and why.

    Raises:
        InputError: there can be no such environment.
    """
    base = {"base": str(environment), "platbase": str(environment)}
    packages = sysconfig.get_path("purelib", "venv", base)
    python = environment / "bin" / "python"
    if not python.exists():
        _say(f"making {environment}")
        made = _run(sys.executable, "-m", "venv", str(environment))
        if made.returncode:
            raise InputError(f"--environment {environment}: {_last_line(made, 'Error: ')}")
    sys.path.append(packages)
    there = {
        f"{re.sub('[-_.]+', '-', found.name).lower()}=={found.version}"
        for found in importlib.metadata.distributions(path=[packages])
    }
    lines = (shlex.split(line, comments=True) for line in REQUIREMENTS.read_text().splitlines())
    return _install_each(python, [words for words in lines if words and words[0] not in there])


def _install_each(python: Path, requirements: Sequence[Sequence[str]]) -> dict[str, str]:
    failures = {}
    for words in requirements:
        _say(f"installing {words[0]}")
        options = ("--quiet", "--no-deps", "--disable-pip-version-check", "--retries", "1")
        done = _run(str(python), "-m", "pip", "install", *options, *words)
        if done.returncode and "Retrying (" in done.stderr:
            # Nor will it be for the others.
            return dict.fromkeys(LIBRARIES, "no package index could be reached")
        if done.returncode:
            failures[words[0].partition("==")[0]] = _last_line(done, "ERROR: ")
    importlib.invalidate_caches()
    return failures


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _last_line(done: "subprocess.CompletedProcess[str]", prefix: str) -> str:
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    told = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    return (told or lines or [f"exit code {done.returncode}"])[-1]


def _say(text: str) -> None:
    click.echo(text, err=True)


def missing(failures: Mapping[str, str]) -> dict[str, str]:
    """`failures`, and the libraries that cannot be imported, with the reason."""
    result = dict(failures)
    for library in LIBRARIES:
        if library not in result:
            try:
                _import(library)
            except Exception as error:  # whatever a package does when it is imported
                result[library] = f"cannot be imported: {_one_line(error)}"
    return result


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _import(library: str) -> None:
    """Without what it has to say of its dependencies."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=library)
    with redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore"):
        if library == "learn2learn":
            # It imports torchvision, which needs help beside a CPU build of PyTorch.
            torchvision_datasets()
        importlib.import_module(library)


@click.command()
@click.option("--filters", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--norm", type=click.Choice(["batch", "group"]), default="batch", show_default=True,
              help="With group a chunk may be a support set.")  # fmt: skip
@click.option("--image-size", type=click.IntRange(min=16), default=84, show_default=True,
              help="Height and width, RGB.")  # fmt: skip
@click.option("--ways", default=5, show_default=True)
@click.option("--shots", default=5, show_default=True)
@click.option("--queries", default=15, show_default=True)
@click.option("--task-batch", default=4, show_default=True)
@click.option("--inner-steps", default=20, show_default=True, help="K.")
@click.option("--cg-steps", default=20, show_default=True, help="N.")
@click.option("--maml-steps", type=click.IntRange(min=0), default=1, show_default=True,
              help="K of MAML, in a table of its own; 0: without it.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=3), default=15, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--device", help="PyTorch device; default: a GPU if there is one.")
@click.option("--environment", type=click.Path(path_type=Path), default=ROOT / ".venv" / "peers",
              help="Where the libraries are, or will be; default: .venv/peers.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Everything, for machines.")
def main(
    filters: int,
    norm: str,
    image_size: int,
    ways: int,
    shots: int,
    queries: int,
    task_batch: int,
    inner_steps: int,
    cg_steps: int,
    maml_steps: int,
    repeats: int,
    threads: int,
    device: str | None,
    environment: Path,
    as_json: bool,
) -> None:
    """Compare gradients, then time and memory of those whose gradients agree."""
    learner = {
        "algorithm": "anil", "feature_scaling": "sqrt_dim", "filters": filters, "norm": norm,
        "task_batch": task_batch, "inner_steps": inner_steps, "inner_lr": INNER_LR,
        "cg_steps": cg_steps, "ridge": RIDGE,
    }  # fmt: skip
    data = {"ways": ways, "shots": shots, "queries": queries}
    run = parse(RunConfig, {"data": data, "learner": learner}, "options")
    place = chosen_device(device)
    setting = Setting(run, image_size, device=str(place))
    left_out = missing(install(environment))
    versions = {
        name: importlib.metadata.version(name) for name in LIBRARIES if name not in left_out
    }
    # In float64 a convolution is many small parallel regions, and each would wait for the cores.
    configure_process(1)
    found = compare(setting, maml_steps, left_out)
    converged = converged_difference(setting)
    configure_process(threads)
    tables = measure_all(setting, maml_steps, left_out, repeats, found)
    hardware = provenance.hardware(place)
    if as_json:
        facts = {
            **data, **learner, "image_size": image_size, "maml_steps": maml_steps,
            "repeats": repeats, "hardware": hardware, "versions": versions,
            "converged_difference": converged, "left_out": left_out,
            "rows": [{"table": k, **asdict(row)} for k, rows in tables.items() for row in rows],
        }  # fmt: skip
        click.echo(json.dumps(facts, indent=1))
        return
    # In a file it has the room it needs.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    episode = f"{ways}-way {shots}-shot, {queries} queries, {task_batch} tasks"
    title = f"{image_size}×{image_size}, Conv4-{filters}, {episode}, {hardware}"
    steps = {"anil": f"K = {inner_steps}, N = {cg_steps}", "maml": f"K = {maml_steps}"}
    for name, rows in tables.items():
        console.print(table(rows, f"{steps[name]}: {title}"))
    for line in _remarks(versions, found, converged, left_out):
        console.print(line, markup=False, soft_wrap=True)


def _remarks(
    versions: Mapping[str, str],
    found: Mapping[str, float],
    converged: float,
    left_out: Mapping[str, str],
) -> Iterator[str]:
    agreeing = max(found[name] for name in found if name not in left_out)
    yield f"gradients equal their reference to {agreeing:.0e}, in float64"
    yield f"memory_reduced's for theta equals ANIL's to {converged:.0e} where both have converged"
    yield from (f"with {name} {version}" for name, version in versions.items())
    yield from (f"left out: {name}: {reason}" for name, reason in left_out.items())


if __name__ == "__main__":
    main()
