import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd.functional import hessian

from memmeta.networks import heads, losses

shapes = st.tuples(st.integers(1, 3), st.integers(2, 4), st.integers(1, 3), st.integers(1, 6))
ridges = st.sampled_from([0.0, 1e-3, 0.5])


def problem(shape, seed):
    tasks, ways, shots, d = shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tasks, ways * shots, d, generator=generator, dtype=torch.float64)
    phi = torch.randn(tasks, ways, d, generator=generator, dtype=torch.float64)
    labels = torch.arange(ways).repeat_interleave(shots).repeat(tasks, 1)
    return phi, x, labels


def regression(shape, seed):
    phi, x, labels = problem(shape, seed)
    return phi[:, :1], x, torch.randn(labels.shape, dtype=torch.float64)


def loss(phi, x, labels, ridge=0.0):
    """Sum of the losses of all tasks."""
    scores = (x @ phi.mT).flatten(0, 1)
    if labels.is_floating_point():
        fit = F.mse_loss(scores, labels.reshape(-1, 1), reduction="sum")
    else:
        fit = F.cross_entropy(scores, labels.flatten(), reduction="sum")
    return fit / x.shape[1] + ridge / 2 * phi.square().sum()


@given(shapes, ridges, st.integers(0, 10_000))
def test_gradient_equals_autograd(shape, ridge, seed):
    for phi, x, labels in (problem(shape, seed), regression(shape, seed)):
        phi.requires_grad_()
        (expected,) = torch.autograd.grad(loss(phi, x, labels, ridge), phi)
        torch.testing.assert_close(heads.gradient(phi, x, labels, ridge), expected)


@given(shapes, ridges, st.integers(0, 10_000))
def test_hessian_vector_product_equals_the_dense_hessian(shape, ridge, seed):
    for phi, x, labels in (problem(shape, seed), regression(shape, seed)):
        v = torch.randn_like(phi)
        curvature = losses.curvature(heads.scores(phi, x), labels)
        actual = heads.hessian_vector_product(curvature, x, v, ridge)
        for task in range(len(phi)):
            one = slice(task, task + 1)
            dense = hessian(lambda p, t=one, x=x, y=labels: loss(p, x[t], y[t], ridge), phi[one])
            expected = torch.einsum("awdbve,bve->awd", dense, v[one])
            torch.testing.assert_close(actual[one], expected)


@pytest.mark.parametrize("scaling", ["none", "sqrt_dim", "standardize"])
def test_head_inputs_append_the_bias_and_scale_both_sets_equally(scaling):
    support = torch.rand(2, 10, 6, dtype=torch.float64) * 7 + 3
    x, same = heads.head_inputs(support, support, scaling, 10.0)
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
    for phi, features, labels in (problem(shape, seed), regression(shape, seed)):
        outputs = phi.shape[1]
        mean_square = losses.input_mean_square(labels, outputs)
        x, _ = heads.head_inputs(features * size + 5, features, "standardize", mean_square)
        for task in range(len(x)):
            zero = x.new_zeros(1, outputs, x.shape[2])
            one = slice(task, task + 1)
            dense = hessian(lambda p, t=one, x=x, y=labels: loss(p, x[t], y[t]), zero)
            largest = torch.linalg.eigvalsh(dense.reshape(zero.numel(), zero.numel())).max()
            assert largest <= 2 + 1e-9


def test_standardize_does_not_scale_a_task_with_equal_features():
    generator = torch.Generator().manual_seed(0)
    support = torch.randn(2, 4, 3, generator=generator)
    support[0] = torch.tensor([1.0, 0.0, 2.0])
    query = torch.randn(2, 5, 3, generator=generator)
    support.requires_grad_()
    query.requires_grad_()
    x, y = heads.head_inputs(support, query, "standardize", 4.0)
    assert torch.equal(x[0, :, :-1], torch.zeros(4, 3))
    assert torch.equal(y[0, :, :-1], query[0] - support[0, 0])
    (x.square().sum() + y.pow(3).sum()).backward()
    for gradient in (support.grad, query.grad):
        assert gradient.isfinite().all()
        assert gradient[0].any()
        assert gradient[1].any()


def test_the_initial_mlp_head_preserves_norms_in_the_hidden_layer_and_outputs_zero():
    torch.manual_seed(0)
    x = 0.01 * torch.randn(1000, 50)
    for width in (20, 2000):
        top = heads.mlp_top(50, 3, width)
        ratio = top[:2](x).square().sum() / x.square().sum()
        assert 0.8 < ratio < 1.2
        assert torch.equal(top(x), torch.zeros(1000, 3))
