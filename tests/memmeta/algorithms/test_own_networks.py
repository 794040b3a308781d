"""Hypergradients of timm's networks, in chunks of any size, against a dense computation."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, hessian

from memmeta.algorithms import ALGORITHMS
from memmeta.config import LearnerConfig
from memmeta.data.episodes import Episodes
from memmeta.networks.models import build_model

TASKS, WAYS, SHOTS, QUERIES, SIZE = 2, 3, 2, 2, 32
NETWORKS = ["timm/test_vit", "timm/test_resnet"]


def episodes():
    generator = torch.Generator().manual_seed(3)

    def examples(n):
        shape = (TASKS, WAYS * n, 3, SIZE, SIZE)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def labels(n):
        return torch.arange(WAYS).repeat_interleave(n).repeat(TASKS, 1)

    return Episodes(examples(SHOTS), labels(SHOTS), examples(QUERIES), labels(QUERIES))


def make_model(config):
    """A float64 model whose BatchNorm layers have statistics other than 0 and 1."""
    torch.manual_seed(0)
    model = build_model(config, (3, SIZE, SIZE), WAYS).double()
    model.backbone.preprocessing = None  # the episodes are network input
    for name, buffer in model.backbone.named_buffers():
        if name.endswith("running_mean"):
            buffer.uniform_(-0.1, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model


@cache
def step(backbone, **changes):
    fields = {"inner_steps": 3, "inner_lr": 0.3, "cg_steps": 80, "ridge": 0.1} | changes
    config = LearnerConfig(backbone=backbone, input_size=SIZE, **fields)
    model = make_model(config)
    ALGORITHMS[config.algorithm].backward(model, episodes(), config)
    return model, config, [parameter.grad for parameter in model.learned()]


def dense_hypergradient(model, config):
    """Mean over tasks of grad f - (grad grad_phi g) H^-1 grad_phi f, with H dense."""
    batch, network = episodes(), model.backbone
    total = 0.0
    for support, s_labels, query, q_labels in zip(*batch, strict=True):
        s, q = network(support), network(query)
        mean = s.mean(0)
        scale = ((s - mean).square().sum(1).mean() / (2 * WAYS)).sqrt()
        s, q = ((x - mean) / scale for x in (s, q))
        s, q = (torch.cat([x, x.new_ones(len(x), 1)], 1) for x in (s, q))

        def g(phi, x, labels=s_labels):
            w = phi.view(WAYS, -1)
            return F.cross_entropy(x @ w.T, labels) + config.ridge / 2 * phi.square().sum()

        def f(phi, x, labels=q_labels):
            return F.cross_entropy(x @ phi.view(WAYS, -1).T, labels)

        phi = torch.zeros(WAYS * s.shape[1], dtype=torch.float64)
        for _ in range(config.inner_steps):
            phi = phi - config.inner_lr * grad(g)(phi, s.detach())
        v = torch.linalg.solve(hessian(g)(phi, s.detach()), grad(f)(phi, q.detach()))
        leaf = phi.clone().requires_grad_()
        (inner,) = torch.autograd.grad(g(leaf, s), leaf, create_graph=True)
        total = total + (f(phi, q) - inner @ v) / TASKS
    return torch.autograd.grad(total, model.learned())


@pytest.mark.parametrize("backbone", NETWORKS)
def test_the_hypergradient_equals_the_dense_one(backbone):
    model, config, gradients = step(backbone)
    expected = dense_hypergradient(model, config)
    scale = max(tensor.abs().max() for tensor in expected)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8 * scale)


@pytest.mark.parametrize("backbone", NETWORKS)
@pytest.mark.parametrize("chunk", [1, 4, 6, 12, 17])
def test_chunks_of_any_size_give_the_same_gradient(backbone, chunk):
    *_, whole = step(backbone, cg_steps=4)
    *_, chunked = step(backbone, cg_steps=4, chunk=chunk)
    assert len(chunked) == len(whole) > 10
    scale = max(tensor.abs().max() for tensor in whole)
    for a, b in zip(chunked, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12 * scale)


@pytest.mark.parametrize("backbone", NETWORKS)
@pytest.mark.parametrize("algorithm", ["memory_reduced", "itd_bio", "anil"])
def test_the_gradient_of_the_last_block_does_not_depend_on_what_else_learns(backbone, algorithm):
    model, _, last = step(backbone, algorithm=algorithm, cg_steps=4, train_last=1)
    whole_model, _, whole = step(backbone, algorithm=algorithm, cg_steps=4)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert 0 < len(names) < len(whole)
    all_names = (name for name, p in whole_model.named_parameters() if p.requires_grad)
    expected = dict(zip(all_names, whole, strict=True))
    scale = max(tensor.abs().max() for tensor in last)
    for name, gradient in zip(names, last, strict=True):
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12 * scale)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert all(parameter.grad is None for parameter in frozen)
