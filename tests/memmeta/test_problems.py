import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import hessian

from memmeta import problems
from memmeta.config import LearnerConfig
from memmeta.data import Episodes
from memmeta.heads import Head, linear_top, mlp_top
from memmeta.models import MetaModel


def problem(top, outputs, regression, seed, trunk=None, scaling="sqrt_dim"):
    """Of two tasks on random features [2, 6, 4]."""
    torch.manual_seed(seed)
    model = MetaModel(nn.Identity(), Head(trunk, top, outputs)).double()
    support, query = torch.randn(2, 6, 4).double(), torch.randn(2, 5, 4).double()
    if regression:
        labels = torch.randn(2, 6).double(), torch.randn(2, 5).double()
    else:
        labels = torch.randint(outputs, (2, 6)), torch.randint(outputs, (2, 5))
    episodes = Episodes(support, labels[0], query, labels[1])
    config = LearnerConfig(ridge=0.1, feature_scaling=scaling)
    return problems.build(model, support, query, episodes, config)


@pytest.mark.parametrize("regression", [False, True])
@given(seed=st.integers(0, 10_000), scaling=st.sampled_from(["none", "sqrt_dim", "standardize"]))
def test_the_general_path_with_a_linear_head_equals_the_closed_form(regression, seed, scaling):
    outputs = 1 if regression else 3
    closed = problem(linear_top(5, outputs), outputs, regression, seed, None, scaling)
    # Neither differs from the linear head in what it computes.
    wrapped = problem(
        nn.Sequential(linear_top(5, outputs)), outputs, regression, seed, None, scaling
    )
    trunk = problem(linear_top(5, outputs), outputs, regression, seed, nn.Identity(), scaling)
    phi, v = torch.randn(2, 2, outputs, 5).double()
    for general in (wrapped, trunk):
        assert type(general) is not type(closed)
        pairs = [
            (closed.support_gradient(phi), general.support_gradient(phi.flatten(1))),
            (closed.query_gradient(phi), general.query_gradient(phi.flatten(1))),
            (closed.support_hessian(phi)(v), general.support_hessian(phi.flatten(1))(v.flatten(1))),
            (closed.query_scores(phi), general.query_scores(phi.flatten(1))),
        ]
        for a, b in pairs:
            torch.testing.assert_close(a, b.view_as(a))


@pytest.mark.parametrize("regression", [False, True])
def test_one_product_serves_all_tasks(regression):
    outputs = 1 if regression else 3
    both = problem(mlp_top(5, 2, outputs), outputs, regression, seed=0)
    size = 5 * 2 + 3 * outputs
    phi, v = torch.randn(2, 2, size).double()
    dense = hessian(both._support_loss)(phi)
    assert dense[0, :, 1].abs().max() == 0  # blocks
    expected = torch.einsum("tisj,sj->ti", dense, v)
    torch.testing.assert_close(both.support_hessian(phi)(v), expected)


@pytest.mark.parametrize("top", [linear_top(5, 3), mlp_top(5, 2, 3)])
def test_without_gradients_enabled_nothing_keeps_a_graph(top):
    some = problem(top, 3, regression=False, seed=0)
    phi = torch.randn(2, 3, 5) if isinstance(top, nn.Linear) else torch.randn(2, 19)
    phi = phi.double()
    with torch.no_grad():
        given_back = [
            some.support_gradient(phi),
            some.query_gradient(phi),
            some.support_hessian(phi)(phi),
            some.query_scores(phi),
        ]
    assert not any(tensor.requires_grad for tensor in given_back)
