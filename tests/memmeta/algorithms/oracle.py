"""The inner problem for one task at a time, implemented independently of memmeta.

A network is the list of its parameters in the order of the layers, `MetaModel.parameters()`. The
inner loop adapts the last ones.
"""

import torch
import torch.nn.functional as F
from torch.func import grad, hessian, jacrev

from memmeta.data.episodes import Episodes
from memmeta.networks import models


def make_model(config, ways, size=16, seed=0):
    """A float64 model without zero parameters, so that no derivative vanishes by chance."""
    torch.manual_seed(seed)
    shape = (1,) if config.backbone == "mlp" else (1, size, size)
    model = models.build_model(config, shape, ways).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def make_episodes(tasks, ways, shots, queries, seed, size=16):
    generator = torch.Generator().manual_seed(seed)

    def images(n):
        return torch.randn(tasks, ways * n, 1, size, size, generator=generator, dtype=torch.float64)

    def labels(n):
        return torch.arange(ways).repeat_interleave(n).repeat(tasks, 1)

    return Episodes(images(shots), labels(shots), images(queries), labels(queries))


def make_regression(tasks, shots, queries, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for n in (shots, queries):
        x = 4 * torch.rand(tasks, n, 1, generator=generator, dtype=torch.float64) - 2
        phase = torch.rand(tasks, 1, generator=generator, dtype=torch.float64)
        tensors += [x, torch.sin(x[..., 0] + phase)]
    return Episodes(*tensors)


def split_tasks(batch):
    return [Episodes(*(tensor[i : i + 1] for tensor in batch)) for i in range(len(batch.support))]


def parameters(model):
    return [p.detach().clone().requires_grad_() for p in model.parameters()]


def count_adapted(config):
    """The number of parameters, from the end, that the inner loop adapts."""
    if config.algorithm == "maml":
        return {"conv4": 12, "mlp": 4}[config.backbone] + {"linear": 1, "mlp": 3}[config.head]
    return {"linear": 1, "mlp": 3, "last_block": 4}[config.head]


def scores(weights, support, query, config, regression):
    """Support and query scores of one task."""
    weights = list(weights)
    if config.backbone == "conv4":
        for _ in range(4):
            kernel, gain, shift = weights[:3]
            del weights[:3]
            support, query = (_block(x, kernel, gain, shift, config) for x in (support, query))
        support, query = support.flatten(1), query.flatten(1)
    else:
        for _ in range(2):
            matrix, bias = weights[:2]
            del weights[:2]
            support, query = (F.relu(x @ matrix.T + bias) for x in (support, query))
    support, query = _scaled(support, query, config, regression, len(weights[-1]))
    support, query = (torch.cat([x, x.new_ones(len(x), 1)], 1) for x in (support, query))
    if len(weights) == 1:
        return support @ weights[0].T, query @ weights[0].T
    hidden, matrix, bias = weights
    return tuple(torch.tanh(x @ hidden.T) @ matrix.T + bias for x in (support, query))


def _block(x, kernel, gain, shift, config):
    x = F.conv2d(x, kernel, padding=1)
    if config.norm == "batch":
        mean = x.mean((0, 2, 3), keepdim=True)
        x = (x - mean) / ((x - mean).pow(2).mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
    else:
        x = F.group_norm(x, {2: 2, 3: 1}[len(gain)])
    return F.max_pool2d(F.relu(x * gain[:, None, None] + shift[:, None, None]), 2)


def _scaled(support, query, config, regression, outputs):
    if config.feature_scaling == "none":
        return support, query
    if config.feature_scaling == "sqrt_dim":
        return support / support.shape[1] ** 0.5, query / support.shape[1] ** 0.5
    mean = support.mean(0)
    size = (support - mean).pow(2).sum(1).mean() / (1 if regression else 2 * outputs)
    return (support - mean) / size.sqrt(), (query - mean) / size.sqrt()


def losses(weights, adapted, task, config):
    """(g, f) of one task, where `adapted` replaces the last entries of `weights`."""
    support, support_labels, query, query_labels = (tensor[0] for tensor in task)
    regression = support_labels.is_floating_point()
    all_weights = [*weights[: len(weights) - len(adapted)], *adapted]
    s, q = scores(all_weights, support, query, config, regression)
    norm = sum(p.square().sum() for p in adapted)
    if regression:
        fits = F.mse_loss(s[:, 0], support_labels), F.mse_loss(q[:, 0], query_labels)
    else:
        fits = F.cross_entropy(s, support_labels), F.cross_entropy(q, query_labels)
    return fits[0] + config.ridge / 2 * norm, fits[1]


def inner_loop(weights, task, config, create_graph):
    adapted = weights[-count_adapted(config) :]
    if not create_graph:
        adapted = [p.detach().requires_grad_() for p in adapted]
    elif not adapted[0].requires_grad:
        adapted = [p.clone().requires_grad_() for p in adapted]
    for _ in range(config.inner_steps):
        g, _ = losses(weights, adapted, task, config)
        steps = torch.autograd.grad(g, adapted, create_graph=create_graph)
        adapted = [p - config.inner_lr * s for p, s in zip(adapted, steps, strict=True)]
        if not create_graph:
            adapted = [p.detach().requires_grad_() for p in adapted]
    return adapted


def query_loss(weights, batch, config, create_graph=False):
    """Mean over tasks of f at phi_K."""
    total = 0.0
    for task in split_tasks(batch):
        adapted = inner_loop(weights, task, config, create_graph)
        total = total + losses(weights, adapted, task, config)[1] / len(batch.support)
    return total


def implicit(weights, batch, config):
    """Mean over tasks of grad_theta f - (grad_theta grad_phi g) H^-1 grad_phi f, H dense.

    H is the Gauss-Newton matrix if `config.curvature` says so, else the Hessian.
    """
    count = len(weights) - count_adapted(config)
    theta = [p.detach() for p in weights[:count]]
    totals = [torch.zeros_like(p) for p in theta]
    for task in split_tasks(batch):
        adapted = [p.detach() for p in inner_loop(weights, task, config, create_graph=False)]
        sizes = [p.numel() for p in adapted]
        phi = torch.cat([p.flatten() for p in adapted])

        def both(theta, phi, task=task, adapted=adapted, sizes=sizes):
            parts = [x.view_as(p) for x, p in zip(phi.split(sizes), adapted, strict=True)]
            return losses([*theta, *parts], parts, task, config)

        def g(theta, phi, both=both):
            return both(theta, phi)[0]

        def f(theta, phi, both=both):
            return both(theta, phi)[1]

        if config.curvature == "gauss_newton":
            h = gauss_newton([*theta, *adapted], len(theta), task, config)
        else:
            h = hessian(g, argnums=1)(theta, phi)
        assert torch.linalg.eigvalsh(h).min() > 1e-3  # otherwise the formula is undefined
        v = torch.linalg.solve(h, grad(f, argnums=1)(theta, phi))
        direct = grad(f)(theta, phi)
        mixed = grad(lambda t, phi=phi, v=v, g=g: grad(g, argnums=1)(t, phi) @ v)(theta)
        for total, d, m in zip(totals, direct, mixed, strict=True):
            total += (d - m) / len(batch.support)
    return totals


def gauss_newton(weights, count, task, config):
    """J' L J + ridge * I of one task, where phi is the weights from index `count` on."""
    support, labels, query, _ = (tensor[0] for tensor in task)
    regression = labels.is_floating_point()

    def support_scores(*adapted):
        all_weights = [*weights[:count], *adapted]
        return scores(all_weights, support, query, config, regression)[0]

    def loss(s):
        return F.mse_loss(s[:, 0], labels) if regression else F.cross_entropy(s, labels)

    adapted = weights[count:]
    s = support_scores(*adapted)
    blocks = jacrev(support_scores, argnums=tuple(range(len(adapted))))(*adapted)
    jacobian = torch.cat([block.reshape(s.numel(), -1) for block in blocks], 1)
    loss_hessian = hessian(loss)(s).reshape(s.numel(), s.numel())
    return (
        jacobian.T @ loss_hessian @ jacobian + config.ridge * torch.eye(jacobian.shape[1]).double()
    )
