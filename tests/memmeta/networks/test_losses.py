import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from memmeta.networks import losses

shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))


def problem(shape, regression, seed):
    generator = torch.Generator().manual_seed(seed)
    tasks, n, outputs = shape
    if regression:
        scores = torch.randn(tasks, n, 1, generator=generator, dtype=torch.float64)
        return scores, torch.randn(tasks, n, generator=generator, dtype=torch.float64)
    scores = torch.randn(shape, generator=generator, dtype=torch.float64)
    return scores, torch.randint(outputs, (tasks, n), generator=generator)


@given(shapes, st.booleans(), st.integers(0, 10_000))
def test_loss_is_the_mean_of_each_task(shape, regression, seed):
    scores, labels = problem(shape, regression, seed)
    each = [
        F.mse_loss(s[:, 0], y) if regression else F.cross_entropy(s, y)
        for s, y in zip(scores, labels, strict=True)
    ]
    torch.testing.assert_close(losses.loss(scores, labels), torch.stack(each))


@given(shapes, st.booleans(), st.integers(0, 10_000))
def test_derivatives_equal_autograd(shape, regression, seed):
    scores, labels = problem(shape, regression, seed)
    scores.requires_grad_()
    total = losses.loss(scores, labels).sum() * shape[1]
    (first,) = torch.autograd.grad(total, scores, create_graph=True)
    torch.testing.assert_close(losses.residual(scores, labels), first)
    v = torch.randn_like(scores)
    (second,) = torch.autograd.grad(first, scores, v)
    torch.testing.assert_close(losses.curvature(scores, labels)(v), second)
