import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd.functional import hessian

from memmeta import heads
from memmeta.config import LearnerConfig

shapes = st.tuples(st.integers(1, 3), st.integers(2, 4), st.integers(1, 3), st.integers(1, 6))
ridges = st.sampled_from([0.0, 1e-3, 0.5])


def problem(shape, seed):
    tasks, ways, shots, d = shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tasks, ways * shots, d, generator=generator, dtype=torch.float64)
    phi = torch.randn(tasks, ways, d, generator=generator, dtype=torch.float64)
    labels = torch.arange(ways).repeat_interleave(shots).repeat(tasks, 1)
    return phi, x, labels


@given(shapes, ridges, st.integers(0, 10_000))
def test_gradient_equals_autograd(shape, ridge, seed):
    phi, x, labels = problem(shape, seed)
    phi.requires_grad_()
    (expected,) = torch.autograd.grad(heads.loss(phi, x, labels, ridge).sum(), phi)
    torch.testing.assert_close(heads.gradient(phi, x, labels, ridge), expected)


@given(shapes, ridges, st.integers(0, 10_000))
def test_hessian_vector_product_equals_the_dense_hessian(shape, ridge, seed):
    phi, x, labels = problem(shape, seed)
    v = torch.randn(phi.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    probabilities = heads.logits(phi, x).softmax(-1)
    actual = heads.hessian_vector_product(probabilities, x, v, ridge)
    for task in range(len(phi)):
        one = slice(task, task + 1)
        dense = hessian(lambda p, t=one: heads.loss(p, x[t], labels[t], ridge).sum(), phi[one])
        expected = torch.einsum("awdbve,bve->awd", dense, v[one])
        torch.testing.assert_close(actual[one], expected)


@given(shapes, st.integers(0, 10_000))
def test_fit_reaches_the_regularised_optimum(shape, seed):
    _, x, labels = problem(shape, seed)
    config = LearnerConfig(inner_steps=2000, inner_lr=0.2, ridge=0.5)
    phi = heads.fit(x, labels, shape[1], config)
    assert heads.gradient(phi, x, labels, 0.5).abs().max() < 1e-6


@pytest.mark.parametrize("scaling", ["none", "sqrt_dim", "standardize"])
def test_head_inputs_append_the_bias_and_scale_both_sets_alike(scaling):
    support = torch.rand(2, 10, 6, dtype=torch.float64) * 7 + 3
    x, same = heads.head_inputs(support, support, scaling, ways=5)
    assert torch.equal(x[..., -1], torch.ones(2, 10, dtype=torch.float64))
    assert torch.equal(x, same)
    features = x[..., :-1]
    if scaling == "none":
        torch.testing.assert_close(features, support)
    elif scaling == "sqrt_dim":
        torch.testing.assert_close(features * 6**0.5, support)
    else:
        zero = torch.zeros(2, 6, dtype=torch.float64)
        torch.testing.assert_close(features.mean(1), zero)
        mean_square = features.square().sum(2).mean(1)
        torch.testing.assert_close(mean_square, torch.full_like(mean_square, 10.0))


@given(shapes, st.floats(0.01, 1000), st.integers(0, 10_000))
def test_standardized_hessian_at_zero_is_at_most_two_for_any_backbone(shape, size, seed):
    _, features, labels = problem(shape, seed)
    ways = shape[1]
    x, _ = heads.head_inputs(features * size + 5, features, "standardize", ways)
    for task in range(len(x)):
        phi = x.new_zeros(1, ways, x.shape[2])
        one = slice(task, task + 1)
        dense = hessian(lambda p, t=one: heads.loss(p, x[t], labels[t]).sum(), phi)
        largest = torch.linalg.eigvalsh(dense.reshape(phi.numel(), phi.numel())).max()
        assert largest <= 2 + 1e-9


def test_standardize_survives_identical_features():
    x, _ = heads.head_inputs(torch.ones(1, 4, 3), torch.ones(1, 4, 3), "standardize", ways=2)
    assert x.isfinite().all()
