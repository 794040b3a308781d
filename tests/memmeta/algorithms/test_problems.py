import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import hessian

from memmeta.algorithms import problems
from memmeta.config import LearnerConfig
from memmeta.data.episodes import Episodes
from memmeta.networks.heads import Head, linear_top, mlp_top
from memmeta.networks.models import MetaModel


def problem(
    top, outputs, regression, seed, trunk=None, scaling="sqrt_dim", curvature="hessian", ridge=0.1
):
    """The inner problem of two tasks with random features [2, 6, 4]."""
    torch.manual_seed(seed)
    model = MetaModel(nn.Identity(), Head(trunk, top, outputs)).double()
    support, query = torch.randn(2, 6, 4).double(), torch.randn(2, 5, 4).double()
    if regression:
        labels = torch.randn(2, 6).double(), torch.randn(2, 5).double()
    else:
        labels = torch.randint(outputs, (2, 6)), torch.randint(outputs, (2, 5))
    episodes = Episodes(support, labels[0], query, labels[1])
    config = LearnerConfig(ridge=ridge, feature_scaling=scaling, curvature=curvature)
    return problems.inner_problem(model, support, query, episodes, config)


@pytest.mark.parametrize("regression", [False, True])
@given(seed=st.integers(0, 10_000), scaling=st.sampled_from(["none", "sqrt_dim", "standardize"]))
def test_the_general_path_with_a_linear_head_equals_the_closed_form(regression, seed, scaling):
    outputs = 1 if regression else 3
    closed = problem(linear_top(5, outputs), outputs, regression, seed, None, scaling)
    # Both compute the same function as the linear head.
    wrapped = problem(
        nn.Sequential(linear_top(5, outputs)), outputs, regression, seed, None, scaling
    )
    trunk = problem(linear_top(5, outputs), outputs, regression, seed, nn.Identity(), scaling)
    phi, v = torch.randn(2, 2, outputs, 5).double()
    gauss_newton = dataclasses.replace(wrapped, gauss_newton=True)
    for general in (wrapped, trunk, gauss_newton):
        assert type(general) is not type(closed)
        pairs = [
            (closed.support_gradient(phi), general.support_gradient(phi.flatten(1))),
            (closed.query_gradient(phi), general.query_gradient(phi.flatten(1))),
            (
                closed.support_curvature(phi)(v),
                general.support_curvature(phi.flatten(1))(v.flatten(1)),
            ),
            (closed.query_scores(phi), general.query_scores(phi.flatten(1))),
        ]
        for a, b in pairs:
            torch.testing.assert_close(a, b.view_as(a))


def deep_head(outputs):
    """A trunk with a convolution, so that the scores are not linear in phi, and a linear top."""
    trunk = nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2, padding=1), nn.Tanh(), nn.Flatten()
    )
    return trunk, linear_top(2 * 9 + 1, outputs)


def heads(outputs):
    return {"mlp": (None, mlp_top(5, outputs, 2)), "block": deep_head(outputs)}


def dense_gauss_newton(inner, phi, task, ridge):
    """J' L J + ridge for one task: J by central differences, L by differentiating the loss."""
    step = 1e-6

    def scores(phi):
        return inner._scores(phi[None], inner.support[task : task + 1])[0]

    columns = [(scores(phi + step * e) - scores(phi - step * e)) / (2 * step)
               for e in torch.eye(len(phi), dtype=phi.dtype)]  # fmt: skip
    jacobian = torch.stack(columns, -1).flatten(0, 1)
    labels = inner.support_labels[task]

    def loss(s):
        if labels.is_floating_point():
            return nn.functional.mse_loss(s[:, 0], labels)
        return nn.functional.cross_entropy(s, labels)

    s = scores(phi)
    loss_hessian = hessian(loss)(s).reshape(s.numel(), s.numel())
    return jacobian.T @ loss_hessian @ jacobian + ridge * torch.eye(len(phi), dtype=phi.dtype)


@pytest.mark.parametrize("regression", [False, True])
@pytest.mark.parametrize("head", ["mlp", "block"])
@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), ridge=st.sampled_from([0.0, 0.2]))
def test_gauss_newton_equals_the_dense_matrix_and_has_no_negative_eigenvalue(
    head, regression, seed, ridge
):
    outputs = 1 if regression else 3
    trunk, top = heads(outputs)[head]
    inner = problem(top, outputs, regression, seed, trunk, "sqrt_dim", "gauss_newton", ridge)
    size = sum(p.numel() for p in inner.head.parameters())
    phi, v = torch.randn(2, 2, size).double()
    product = inner.support_curvature(phi)(v)
    for task in range(2):
        dense = dense_gauss_newton(inner, phi[task], task, ridge)
        torch.testing.assert_close(product[task], dense @ v[task], rtol=1e-6, atol=1e-7)
        assert torch.linalg.eigvalsh(dense).min() >= inner.curvature_floor - 1e-8
    # The Hessian has negative eigenvalues, so the test distinguishes the two.
    indefinite = problem(top, outputs, regression, seed, trunk, "sqrt_dim", "hessian", ridge)
    assert indefinite.curvature_floor == 0
    assert not torch.allclose(indefinite.support_curvature(phi)(v), product)


@pytest.mark.parametrize("regression", [False, True])
def test_one_product_serves_all_tasks(regression):
    outputs = 1 if regression else 3
    both = problem(mlp_top(5, outputs, 2), outputs, regression, seed=0)
    size = 5 * 2 + 3 * outputs
    phi, v = torch.randn(2, 2, size).double()
    dense = hessian(both._support_loss)(phi)
    assert dense[0, :, 1].abs().max() == 0  # block-diagonal
    expected = torch.einsum("tisj,sj->ti", dense, v)
    torch.testing.assert_close(both.support_curvature(phi)(v), expected)


@pytest.mark.parametrize("top", [linear_top(5, 3), mlp_top(5, 3, 2)])
@pytest.mark.parametrize("curvature", ["hessian", "gauss_newton"])
def test_without_gradients_enabled_no_result_has_a_graph(top, curvature):
    inner = problem(top, 3, regression=False, seed=0, curvature=curvature)
    phi = torch.randn(2, 3, 5) if isinstance(top, nn.Linear) else torch.randn(2, 19)
    phi = phi.double()
    with torch.no_grad():
        results = [
            inner.support_gradient(phi),
            inner.query_gradient(phi),
            inner.support_curvature(phi)(phi),
            inner.query_scores(phi),
        ]
    assert not any(tensor.requires_grad for tensor in results)
