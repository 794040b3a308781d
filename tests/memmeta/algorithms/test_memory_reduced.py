"""The hypergradient compared with independent implementations in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, hessian

from memmeta.algorithms import memory_reduced
from memmeta.algorithms.inner_loop import predict
from memmeta.algorithms.outcome import Solution
from memmeta.config import LearnerConfig
from memmeta.networks import heads
from memmeta.networks.heads import Head, linear_top, mlp_top
from memmeta.networks.models import MetaModel
from tests.memmeta.algorithms.oracle import (
    implicit,
    make_episodes,
    make_model,
    make_regression,
    parameters,
    split_tasks,
)


def small_model(seed, outputs, config):
    """A smooth backbone, so that Hessians are smooth too, with the head of `config`."""
    torch.manual_seed(seed)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3))
    top = mlp_top(4, outputs, 3) if config.head == "mlp" else linear_top(4, outputs)
    model = MetaModel(backbone, Head(None, top, outputs)).double()
    model.head.requires_grad_(False)
    return model


def episodes(tasks, ways, shots, queries, seed):
    return make_episodes(tasks, ways, shots, queries, seed, size=4)


def hypergradient(model, batch, config):
    model.zero_grad()
    memory_reduced.backward(model, batch, config)
    assert all(p.grad is None for p in model.head.parameters())
    return [p.grad.clone() for p in model.backbone.parameters()]


def losses(backbone, config, ways, task):
    """(support loss, query loss) of one task as functions of (theta, flat phi)."""
    support, support_labels, query, query_labels = (tensor[0] for tensor in task)

    def inputs(theta):
        s, q = (functional_call(backbone, theta, (x,)) for x in (support, query))
        s, q = heads.head_inputs(s[None], q[None], config.feature_scaling, 2 * ways)
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
    batch = episodes(tasks, ways, shots, queries, seed)
    config = LearnerConfig(
        inner_steps=inner_steps, inner_lr=0.1, cg_steps=60, ridge=ridge, feature_scaling=scaling
    )
    model = small_model(seed, ways, config)
    actual = hypergradient(model, batch, config)
    expected = dense_implicit(model.backbone, batch, ways, config, dim=4)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-6, atol=1e-8)


@settings(max_examples=10)
@given(**cases | {"ridge": st.sampled_from([0.3, 1.0])})
def test_equals_full_unrolling_when_k_is_large(ways, shots, queries, tasks, seed, ridge, scaling):
    batch = episodes(tasks, ways, shots, queries, seed)
    # The slowest direction shrinks by 1 - 0.2 * 0.3 per step, to 1e-8 after 300 steps.
    config = LearnerConfig(
        inner_steps=300, inner_lr=0.2, cg_steps=60, ridge=ridge, feature_scaling=scaling
    )
    model = small_model(seed, ways, config)
    actual = hypergradient(model, batch, config)

    backbone = model.backbone
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


@pytest.mark.parametrize("head", ["linear", "mlp", "last_block"])
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize(("curvature", "ridge"), [("hessian", 2.0), ("gauss_newton", 0.1)])
def test_conv4_equals_the_dense_implicit_formula(head, norm, curvature, ridge):
    config = LearnerConfig(
        filters=2, norm=norm, head=head, head_width=3, inner_steps=3, inner_lr=0.1, cg_steps=150,
        ridge=ridge, feature_scaling="sqrt_dim", curvature=curvature,
    )  # fmt: skip
    model, batch = make_model(config, 3), make_episodes(2, 3, 2, 2, seed=0)
    actual = hypergradient(model, batch, config)
    expected = implicit(parameters(model), batch, config)
    assert max(e.abs().max() for e in expected) > 1e-3
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_an_indefinite_hessian_gives_a_finite_hypergradient(norm):
    config = LearnerConfig(filters=2, norm=norm, head="last_block", ridge=0.0, inner_lr=0.1)
    model, batch = make_model(config, 3), make_episodes(2, 3, 2, 2, seed=0)
    assert all(g.isfinite().all() for g in hypergradient(model, batch, config))


def _distance(some, others):
    return sum((a - b).square().sum() for a, b in zip(some, others, strict=True)).sqrt()


@pytest.mark.parametrize("head", ["mlp", "last_block"])
def test_by_default_more_iterations_are_closer_to_the_dense_solve(head):
    def config(cg_steps, **changes):
        return LearnerConfig(
            filters=2, norm="group", head=head, head_width=3, inner_steps=3, inner_lr=0.1,
            cg_steps=cg_steps, ridge=0.01, feature_scaling="sqrt_dim", **changes,
        )  # fmt: skip

    model, batch = make_model(config(1), 3), make_episodes(2, 3, 2, 2, seed=0)
    dense = implicit(parameters(model), batch, config(1, curvature="gauss_newton"))
    gradients = [hypergradient(model, batch, config(n)) for n in (0, 2, 100)]
    distances = [_distance(gradient, dense) for gradient in gradients]
    assert distances[0] > 3 * distances[1]
    assert distances[1] > 1e6 * distances[2]
    # With the Hessian all tasks stop, after which N has no effect.
    few, many = (hypergradient(model, batch, config(n, curvature="hessian")) for n in (10, 100))
    assert _distance(few, many) == 0
    stopped = memory_reduced.backward(model, batch, config(10, curvature="hessian")).diagnostics
    assert stopped.cg_stopped == 1
    assert memory_reduced.backward(model, batch, config(10)).diagnostics.cg_stopped == 0


@pytest.mark.parametrize("cg_steps", [5, 20, 60])
def test_without_a_ridge_v_stays_bounded(cg_steps):
    config = LearnerConfig(filters=16, inner_steps=20, cg_steps=cg_steps, ridge=0.0)
    model, batch = make_model(config, 5, size=32).float(), make_episodes(4, 5, 1, 5, 1, size=32)
    batch = batch._replace(support=batch.support.float(), query=batch.query.float())

    def norm(config):
        return torch.nn.utils.get_total_norm(hypergradient(model, batch, config))

    assert norm(config) < 10 * norm(config.model_copy(update={"cg_steps": 0}))
    assert memory_reduced.backward(model, batch, config).diagnostics.cg_residual <= 1


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize(("curvature", "ridge"), [("hessian", 2.0), ("gauss_newton", 0.1)])
def test_regression_equals_the_dense_implicit_formula(head, curvature, ridge):
    config = LearnerConfig(
        backbone="mlp", head=head, head_width=3, inner_steps=5, inner_lr=0.1, cg_steps=100,
        ridge=ridge, curvature=curvature,
    )  # fmt: skip
    model, batch = make_model(config, 1), make_regression(3, 5, 7, seed=0)
    actual = hypergradient(model, batch, config)
    expected = implicit(parameters(model), batch, config)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-6, atol=1e-8)


def test_the_hypergradient_of_a_batch_is_the_mean_over_its_tasks():
    config = LearnerConfig(inner_steps=5, inner_lr=0.1, cg_steps=5)
    model, batch = small_model(0, 3, config), episodes(3, 3, 2, 2, seed=1)
    together = hypergradient(model, batch, config)
    alone = [hypergradient(model, task, config) for task in split_tasks(batch)]
    for t, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(t, torch.stack(parts).mean(0))


def test_zero_cg_steps_give_the_first_order_hypergradient():
    config = LearnerConfig(inner_steps=5, inner_lr=0.1, cg_steps=0)
    model, batch = small_model(0, 3, config), episodes(1, 3, 2, 2, seed=1)
    actual = hypergradient(model, batch, config)
    theta = dict(model.backbone.named_parameters())
    g, f = losses(model.backbone, config, 3, batch)
    phi = torch.zeros(12, dtype=torch.float64)
    for _ in range(5):
        phi = phi - 0.1 * grad(g, argnums=1)(theta, phi)
    for a, e in zip(actual, grad(f)(theta, phi.detach()).values(), strict=True):
        torch.testing.assert_close(a, e)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_warm_start_continues_from_the_last_visit(head):
    config = LearnerConfig(head=head, inner_steps=9, inner_lr=0.1, cg_steps=4, ridge=1.5)
    model, batch = small_model(0, 3, config), episodes(2, 3, 2, 2, seed=1)
    start = Solution(model.initial_phi(2), torch.zeros_like(model.initial_phi(2)))
    cold = memory_reduced.backward(model, batch, config)
    assert cold.solution is None
    once = memory_reduced.backward(model, batch, config, start)
    assert once.diagnostics == cold.diagnostics
    twice = memory_reduced.backward(model, batch, config, once.solution)
    long = config.model_copy(update={"inner_steps": 18})
    at_once = memory_reduced.backward(model, batch, long, start)
    torch.testing.assert_close(twice.solution.phi, at_once.solution.phi)
    # The same for v: at the same phi the linear system is the same, and its residual falls.
    still = config.model_copy(update={"inner_steps": 0})
    again = memory_reduced.backward(model, batch, still, once.solution)
    assert again.diagnostics.cg_residual < 0.5 * once.diagnostics.cg_residual


def test_diagnostics_match_their_definitions():
    config = LearnerConfig(inner_steps=4, inner_lr=0.1, cg_steps=2)
    model, batch = small_model(0, 3, config), episodes(2, 3, 2, 4, seed=1)
    diagnostics = memory_reduced.backward(model, batch, config).diagnostics
    scores = predict(model, batch, config)
    loss = nn.functional.cross_entropy(scores.flatten(0, 1), batch.query_labels.flatten())
    accuracy = (scores.argmax(-1) == batch.query_labels).double().mean()
    torch.testing.assert_close(diagnostics.query_loss, loss)
    torch.testing.assert_close(diagnostics.query_accuracy.double(), accuracy)
    assert 0 < diagnostics.cg_residual < 1
    assert diagnostics.inner_gradient_norm > 0
