"""The hypergradient against oracles that share no code with it, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, hessian, vmap

from memmeta import backbones, heads
from memmeta.algorithms import memory_reduced
from memmeta.config import LearnerConfig
from memmeta.data import Episodes


def episodes(tasks, ways, shots, queries, seed, size=4):
    generator = torch.Generator().manual_seed(seed)

    def images(n):
        return torch.randn(tasks, ways * n, 1, size, size, generator=generator, dtype=torch.float64)

    def labels(n):
        return torch.arange(ways).repeat_interleave(n).repeat(tasks, 1)

    return Episodes(images(shots), labels(shots), images(queries), labels(queries))


def small_backbone(seed):
    """Smooth, so that finite differences and Hessians are clean."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def hypergradient(backbone, batch, ways, config):
    backbone.zero_grad()
    memory_reduced.backward(backbone, batch, ways, config)
    return [p.grad.clone() for p in backbone.parameters()]


def losses(backbone, config, ways, task):
    """(support loss, query loss) of one task as functions of (theta, flat phi), from scratch."""
    support, support_labels, query, query_labels = (part[0] for part in task)

    def inputs(theta):
        s, q = (functional_call(backbone, theta, (x,)) for x in (support, query))
        s, q = heads.head_inputs(s[None], q[None], config.feature_scaling, ways)
        return s[0], q[0]

    def g(theta, phi):
        x, _ = inputs(theta)
        scores = x @ phi.reshape(ways, -1).T
        fit = nn.functional.cross_entropy(scores, support_labels)
        return fit + config.ridge / 2 * phi.square().sum()

    def f(theta, phi):
        _, x = inputs(theta)
        return nn.functional.cross_entropy(x @ phi.reshape(ways, -1).T, query_labels)

    return g, f


def split_tasks(batch):
    return [Episodes(*(part[i : i + 1] for part in batch)) for i in range(len(batch.support))]


def dense_implicit(backbone, batch, ways, config, dim):
    """Mean over tasks of grad_theta f - (grad_theta grad_phi g) H^-1 grad_phi f at phi_K."""
    theta = dict(backbone.named_parameters())
    totals = {name: torch.zeros_like(p) for name, p in theta.items()}
    for task in split_tasks(batch):
        g, f = losses(backbone, config, ways, task)
        phi = torch.zeros(ways * dim, dtype=torch.float64)
        for _ in range(config.inner_steps):
            phi = phi - config.inner_lr * grad(g, argnums=1)(theta, phi)
        h = hessian(g, argnums=1)(theta, phi)
        v = torch.linalg.solve(h, grad(f, argnums=1)(theta, phi)).detach()
        phi = phi.detach()
        direct = grad(f)(theta, phi)
        mixed = grad(lambda t, g=g, phi=phi, v=v: grad(g, argnums=1)(t, phi) @ v)(theta)
        for name in totals:
            totals[name] += (direct[name] - mixed[name]).detach() / len(batch.support)
    return list(totals.values())


cases = {
    "ways": st.integers(2, 4),
    "shots": st.integers(1, 3),
    "queries": st.integers(1, 3),
    "tasks": st.integers(1, 3),
    "seed": st.integers(0, 10_000),
    "ridge": st.sampled_from([0.05, 0.3, 1.0]),
    "scaling": st.sampled_from(["none", "sqrt_dim", "standardize"]),
}


@settings(max_examples=25)
@given(**cases, inner_steps=st.integers(0, 10))
def test_equals_the_dense_implicit_formula(
    ways, shots, queries, tasks, seed, ridge, scaling, inner_steps
):
    backbone, batch = small_backbone(seed), episodes(tasks, ways, shots, queries, seed)
    config = LearnerConfig(
        inner_steps=inner_steps, inner_lr=0.1, cg_steps=60, ridge=ridge, feature_scaling=scaling
    )
    actual = hypergradient(backbone, batch, ways, config)
    expected = dense_implicit(backbone, batch, ways, config, dim=4)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-6, atol=1e-8)


@settings(max_examples=10)
@given(**cases | {"ridge": st.sampled_from([0.3, 1.0])})
def test_equals_full_unrolling_when_k_is_large(ways, shots, queries, tasks, seed, ridge, scaling):
    backbone, batch = small_backbone(seed), episodes(tasks, ways, shots, queries, seed)
    # The slowest direction shrinks by 1 - 0.2 * 0.3 a step: 1e-8 is left after 300.
    config = LearnerConfig(
        inner_steps=300, inner_lr=0.2, cg_steps=60, ridge=ridge, feature_scaling=scaling
    )
    actual = hypergradient(backbone, batch, ways, config)

    theta = dict(backbone.named_parameters())

    def unrolled(theta):
        total = 0.0
        for task in split_tasks(batch):
            g, f = losses(backbone, config, ways, task)
            phi = torch.zeros(ways * 4, dtype=torch.float64, requires_grad=True)
            for _ in range(config.inner_steps):
                (step,) = torch.autograd.grad(g(theta, phi), phi, create_graph=True)
                phi = phi - config.inner_lr * step
            total = total + f(theta, phi) / tasks
        return total

    expected = torch.autograd.grad(unrolled(theta), list(theta.values()))
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_conv4_equals_the_dense_implicit_formula(norm):
    config = LearnerConfig(filters=2, norm=norm, inner_steps=3, inner_lr=0.5, cg_steps=80)
    torch.manual_seed(0)
    backbone = backbones.build(config, (1, 16, 16)).double()
    batch = episodes(tasks=2, ways=3, shots=2, queries=2, seed=0, size=16)
    actual = hypergradient(backbone, batch, 3, config)
    expected = dense_implicit(backbone, batch, 3, config, dim=3)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-6, atol=1e-8)


def test_a_batch_of_tasks_is_the_mean_of_its_tasks():
    backbone, batch = small_backbone(0), episodes(3, 3, 2, 2, seed=1)
    config = LearnerConfig(inner_steps=5, inner_lr=0.1, cg_steps=5)
    together = hypergradient(backbone, batch, 3, config)
    alone = [hypergradient(backbone, task, 3, config) for task in split_tasks(batch)]
    for t, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(t, torch.stack(parts).mean(0))


def test_no_cg_steps_is_the_first_order_hypergradient():
    backbone, batch = small_backbone(0), episodes(1, 3, 2, 2, seed=1)
    config = LearnerConfig(inner_steps=5, inner_lr=0.1, cg_steps=0)
    actual = hypergradient(backbone, batch, 3, config)
    theta = dict(backbone.named_parameters())
    g, f = losses(backbone, config, 3, batch)
    phi = torch.zeros(12, dtype=torch.float64)
    for _ in range(5):
        phi = phi - 0.1 * grad(g, argnums=1)(theta, phi)
    for a, e in zip(actual, grad(f)(theta, phi.detach()).values(), strict=True):
        torch.testing.assert_close(a, e)


def test_diagnostics_are_those_of_the_definitions():
    backbone, batch = small_backbone(0), episodes(2, 3, 2, 4, seed=1)
    config = LearnerConfig(inner_steps=4, inner_lr=0.1, cg_steps=2)
    diagnostics = memory_reduced.backward(backbone, batch, 3, config)
    scores = memory_reduced.predict(backbone, batch, 3, config)
    loss = nn.functional.cross_entropy(scores.flatten(0, 1), batch.query_labels.flatten())
    accuracy = (scores.argmax(-1) == batch.query_labels).double().mean()
    torch.testing.assert_close(diagnostics.query_loss, loss)
    torch.testing.assert_close(diagnostics.query_accuracy.double(), accuracy)
    assert 0 < diagnostics.cg_residual < 1
    assert diagnostics.inner_gradient_norm > 0


def test_batch_norm_keeps_tasks_apart_and_group_norm_keeps_images_apart():
    images = torch.randn(2, 6, 1, 16, 16)
    for norm in ("batch", "group"):
        backbone = backbones.build(LearnerConfig(filters=4, norm=norm), (1, 16, 16))
        together = backbones.features(backbone, images)
        alone = torch.cat([backbones.features(backbone, task[None]) for task in images])
        torch.testing.assert_close(together, alone)
    one_by_one = vmap(lambda image: backbone(image[None])[0])(images[0])
    torch.testing.assert_close(backbones.features(backbone, images)[0], one_by_one)
