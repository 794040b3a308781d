"""ITD-BiO, ANIL and MAML compared with independent implementations in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memmeta.algorithms import ALGORITHMS
from memmeta.algorithms.inner_loop import predict
from memmeta.config import LearnerConfig
from tests.memmeta.algorithms.oracle import (
    count_adapted,
    implicit,
    inner_loop,
    losses,
    make_episodes,
    make_model,
    make_regression,
    parameters,
    query_loss,
    split_tasks,
)

VARIANTS = [
    (algorithm, reuse, head)
    for algorithm, reuses, heads in [
        ("itd_bio", [True, False], ["linear", "mlp", "last_block"]),
        ("anil", [True, False], ["linear", "mlp", "last_block"]),
        ("maml", [True], ["linear", "mlp"]),
    ]
    for reuse in reuses
    for head in heads
]


def configure(algorithm, reuse=True, head="linear", **changes):
    settings = {"filters": 2, "head_width": 3, "inner_steps": 3, "inner_lr": 0.3, "ridge": 0.05}
    return LearnerConfig(
        algorithm=algorithm, feature_reuse=reuse, head=head, **(settings | changes)
    )


def hypergradient(model, batch, config):
    model.zero_grad()
    outcome = ALGORITHMS[config.algorithm].backward(model, batch, config)
    return [p.grad for p in model.parameters()], outcome.diagnostics


@pytest.mark.parametrize(("algorithm", "reuse", "head"), VARIANTS)
def test_equals_finite_differences(algorithm, reuse, head):
    config = configure(algorithm, reuse, head)
    check_finite_differences(make_model(config, 3), make_episodes(2, 3, 2, 2, seed=0), config)


@pytest.mark.parametrize(
    ("algorithm", "reuse", "head"), [v for v in VARIANTS if "block" not in v[2]]
)
def test_regression_equals_finite_differences(algorithm, reuse, head):
    config = configure(algorithm, reuse, head, backbone="mlp", inner_lr=0.1)
    check_finite_differences(make_model(config, 1), make_regression(2, 5, 7, seed=0), config)


def check_finite_differences(model, batch, config):
    """Compare along random directions of the learned parameters (for ITD-BiO without phi^0)."""
    gradient, _ = hypergradient(model, batch, config)
    fixed = [g is None for g in gradient[-count_adapted(config) :]]
    assert all(fixed) if config.algorithm == "itd_bio" else not any(fixed)
    weights = parameters(model)
    for seed in range(2):
        torch.manual_seed(seed)
        direction = [torch.zeros_like(p) if g is None else torch.randn_like(p)
                     for p, g in zip(weights, gradient, strict=True)]  # fmt: skip

        def loss(step, direction=direction):
            moved = zip(weights, direction, strict=True)
            return query_loss([(p + step * d).detach() for p, d in moved], batch, config).item()

        pairs = zip(gradient, direction, strict=True)
        actual = sum((g * d).sum() for g, d in pairs if g is not None).item()
        # A step may cross a kink of a ReLU or a max-pool, but hardly both steps do.
        expected = [(loss(h) - loss(-h)) / (2 * h) for h in (1e-6, 1e-7)]
        assert any(actual == pytest.approx(e, rel=1e-5, abs=1e-7) for e in expected)


@pytest.mark.parametrize(("algorithm", "reuse", "head"), VARIANTS)
@settings(max_examples=5)
@given(
    seed=st.integers(0, 10_000),
    tasks=st.integers(1, 2),
    inner_steps=st.integers(0, 4),
    norm=st.sampled_from(["batch", "group"]),
    scaling=st.sampled_from(["none", "sqrt_dim", "standardize"]),
)
def test_equals_an_explicit_loop(algorithm, reuse, head, seed, tasks, inner_steps, norm, scaling):
    config = configure(
        algorithm, reuse, head, inner_steps=inner_steps, norm=norm, feature_scaling=scaling
    )
    model, batch = make_model(config, 3, seed=seed), make_episodes(tasks, 3, 2, 2, seed)
    check_explicit_loop(model, batch, config)


@pytest.mark.parametrize(
    ("algorithm", "reuse", "head"), [v for v in VARIANTS if "block" not in v[2]]
)
def test_regression_equals_an_explicit_loop(algorithm, reuse, head):
    config = configure(algorithm, reuse, head, backbone="mlp", inner_lr=0.1)
    check_explicit_loop(make_model(config, 1), make_regression(3, 5, 7, seed=0), config)


def check_explicit_loop(model, batch, config):
    actual, diagnostics = hypergradient(model, batch, config)
    weights = parameters(model)
    loss = query_loss(weights, batch, config, create_graph=True)
    torch.testing.assert_close(diagnostics.query_loss, loss.detach())
    expected = torch.autograd.grad(loss, weights, allow_unused=True)
    for a, e in zip(actual, expected, strict=True):
        if a is not None:
            torch.testing.assert_close(a, e, rtol=1e-6, atol=1e-9)


def check_first_order(actual, weights, batch, config):
    """Compare with the gradient of f at phi_K, in theta and (for phi^0) in phi_K."""
    expected = [torch.zeros_like(p) for p in weights]
    for task in split_tasks(batch):
        adapted = inner_loop(weights, task, config, create_graph=False)
        at = [*weights[: len(weights) - len(adapted)], *adapted]
        grads = torch.autograd.grad(losses(at, adapted, task, config)[1], at, allow_unused=True)
        for e, g in zip(expected, grads, strict=True):
            e += g / len(batch.support)
    for a, e in zip(actual, expected, strict=True):
        if a is not None:
            torch.testing.assert_close(a, e)


@pytest.mark.parametrize(("algorithm", "reuse", "head"), VARIANTS)
def test_first_order_treats_the_inner_gradients_as_constants(algorithm, reuse, head):
    config = configure(algorithm, reuse, head, first_order=True)
    model, batch = make_model(config, 3), make_episodes(2, 3, 2, 2, seed=0)
    check_first_order(hypergradient(model, batch, config)[0], parameters(model), batch, config)


@pytest.mark.parametrize("algorithm", ["anil", "itd_bio"])
@pytest.mark.parametrize("head", ["linear", "mlp", "last_block"])
@pytest.mark.parametrize("norm", ["batch", "group", "frozen"])
def test_naive_equals_cached(algorithm, head, norm):
    config = configure(algorithm, head=head, norm=norm, inner_steps=5)
    model, batch = make_model(config, 3), make_episodes(2, 3, 2, 2, seed=1)
    cached, _ = hypergradient(model, batch, config)
    naive, _ = hypergradient(model, batch, config.model_copy(update={"feature_reuse": False}))
    for c, n in zip(cached, naive, strict=True):
        if c is not None:
            torch.testing.assert_close(c, n)


@pytest.mark.parametrize(
    ("algorithm", "reuse"),
    [("memory_reduced", True)]
    + [(algorithm, reuse) for algorithm in ("itd_bio", "anil") for reuse in (True, False)],
)
@pytest.mark.parametrize(
    ("head", "ridge"),
    [("linear", 0.2), pytest.param("mlp", 0.3, marks=pytest.mark.thorough)],
)
def test_with_a_long_inner_loop_all_algorithms_give_the_implicit_hypergradient(
    algorithm, reuse, head, ridge
):
    config = configure(
        algorithm, reuse, head, inner_steps=300, inner_lr=0.4, cg_steps=60, ridge=ridge
    )
    if algorithm == "memory_reduced":
        config = config.model_copy(update={"curvature": "hessian"})
    model, batch = make_model(config, 3, seed=2), make_episodes(1, 3, 2, 2, seed=2)
    actual, _ = hypergradient(model, batch, config)
    expected = implicit(parameters(model), batch, config)
    assert max(e.abs().max() for e in expected) > 1e-2
    for a, e in zip(actual, expected, strict=False):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-5)
    if algorithm == "anil":  # the starting point no longer matters
        for a in actual[len(expected) :]:
            assert a.abs().max() < 1e-5


@pytest.mark.parametrize(("algorithm", "reuse", "head"), VARIANTS)
def test_diagnostics_equal_those_of_prediction(algorithm, reuse, head):
    config = configure(algorithm, reuse, head)
    model, batch = make_model(config, 3), make_episodes(2, 3, 2, 2, seed=3)
    _, diagnostics = hypergradient(model, batch, config)
    predicted = predict(model, batch, config)
    accuracy = (predicted.argmax(-1) == batch.query_labels).float().mean()
    loss = torch.nn.functional.cross_entropy(predicted.mT, batch.query_labels)
    torch.testing.assert_close(diagnostics.query_loss, loss)
    torch.testing.assert_close(diagnostics.query_accuracy, accuracy)
    assert diagnostics.cg_residual is None
    assert (diagnostics.inner_gradient_norm is None) == (not reuse or algorithm == "maml")
