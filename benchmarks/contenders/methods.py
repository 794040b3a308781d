"""The methods of the peers. Libraries imported within functions exist only after `install`."""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from contenders.work import Whole, Work

Method = Callable[[Work], None]
"""Adds the meta-gradient to the `.grad` of the parameters."""


def floor(work: Work) -> None:
    """Forward and backward passes of the network only."""
    for support, _, query, _ in work.tasks:
        (work.network(support).sum() + work.network(query).sum()).backward()


def learn2learn_anil(work: Work) -> None:
    """MAML on the head, one task at a time, as in the library's ANIL example."""
    import learn2learn

    head = learn2learn.algorithms.MAML(work.head, lr=work.learner.inner_lr)
    for support, labels, query, query_labels in work.tasks:
        x, q = work.features(support), work.features(query)
        learner = head.clone()
        for _ in work.steps:
            learner.adapt(work.support_loss(learner(x), labels, learner.parameters()))
        work.query_backward(learner(q), query_labels)


def torchopt_anil(work: Work) -> None:
    """MetaSGD on the head, one task at a time, as in the library's tutorial."""
    import torchopt

    optimizer = torchopt.MetaSGD(work.head, lr=work.learner.inner_lr)
    stateful = (work.head, optimizer)
    start = [torchopt.extract_state_dict(target, by="reference") for target in stateful]
    for support, labels, query, query_labels in work.tasks:
        x, q = work.features(support), work.features(query)
        for _ in work.steps:
            optimizer.step(work.support_loss(work.head(x), labels, work.head.parameters()))
        work.query_backward(work.head(q), query_labels)
        for target, state in zip(stateful, start, strict=True):
            torchopt.recover_state_dict(target, state)


def higher_anil(work: Work) -> None:
    """Differentiable SGD on the head, one task at a time."""
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
    """Detached parameters: otherwise `torch.func.grad` builds a graph of its own gradient."""
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def _add(module: nn.Module, gradients: Mapping[str, Tensor]) -> None:
    for name, parameter in module.named_parameters():
        before = parameter.grad
        parameter.grad = gradients[name] if before is None else before + gradients[name]


def plain_anil(work: Work) -> None:
    """Straightforward PyTorch: features once per task, and a differentiable loop on the head."""
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
    """Implicit gradient of the head's solution, with N conjugate-gradient iterations."""
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
    """MAML on network and head, one task at a time."""
    import learn2learn

    whole = learn2learn.algorithms.MAML(Whole(work), lr=work.learner.inner_lr)
    for support, labels, query, query_labels in work.tasks:
        learner = whole.clone()
        for _ in work.steps:
            learner.adapt(work.support_loss(learner(support), labels, learner.parameters()))
        work.query_backward(learner(query), query_labels)


def torch_func_maml(work: Work) -> None:
    """Nested `torch.func.grad`, one task at a time, since every task adapts its convolutions."""
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
