import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memmeta.algorithms.conjugate_gradient import conjugate_gradient

seeds = st.integers(0, 10_000)


def symmetric(eigenvalues: torch.Tensor, tasks: int, generator: torch.Generator) -> torch.Tensor:
    """Random symmetric matrices with these eigenvalues, and random eigenvectors."""
    n = len(eigenvalues)
    q = torch.linalg.qr(torch.randn(tasks, n, n, generator=generator, dtype=torch.float64)).Q
    return q @ (eigenvalues[:, None] * q.mT)


def spd(tasks: int, n: int, condition: float, generator: torch.Generator) -> torch.Tensor:
    """Random symmetric positive definite matrices with a spectrum from 1 / condition to 1."""
    eigenvalues = torch.logspace(0, 1, n, dtype=torch.float64, base=1 / condition)
    return symmetric(eigenvalues, tasks, generator)


def solve(a, b, steps, x0=None, floor=0.0):
    return conjugate_gradient(lambda p: (a @ p[..., None])[..., 0], b, steps, x0, floor)


def residuals(a, b, x):
    """||b - A x|| / ||b|| of each task."""
    a, b, x = (tensor.double() for tensor in (a, b, x))
    return (b - (a @ x[..., None])[..., 0]).norm(dim=1) / b.norm(dim=1)


@given(
    tasks=st.integers(1, 4),
    n=st.integers(1, 12),
    condition=st.floats(1, 1e4),
    seed=seeds,
    warm=st.booleans(),
    known=st.booleans(),
)
def test_equals_a_dense_solve(tasks, n, condition, seed, warm, known):
    generator = torch.Generator().manual_seed(seed)
    a = spd(tasks, n, condition, generator)
    b = torch.randn(tasks, n, generator=generator, dtype=torch.float64)
    x0 = torch.randn(b.shape, generator=generator, dtype=torch.float64) if warm else None
    # 3 n iterations: far beyond convergence, where only rounding errors are left.
    solved = solve(a, b, 3 * n, x0, floor=1 / condition if known else 0.0)
    torch.testing.assert_close(solved.x, torch.linalg.solve(a, b), rtol=1e-6, atol=1e-6)
    assert solved.residual.max() < 1e-8
    assert not solved.stopped.any()


@given(steps=st.integers(0, 10), condition=st.floats(2, 1e3), seed=seeds)
def test_the_error_is_below_the_textbook_bound(steps, condition, seed):
    generator = torch.Generator().manual_seed(seed)
    a = spd(2, 12, condition, generator)
    b = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    exact = torch.linalg.solve(a, b)

    def a_norm(e):
        return torch.einsum("ti,tij,tj->t", e, a, e).sqrt()

    rate = (condition**0.5 - 1) / (condition**0.5 + 1)
    error = a_norm(solve(a, b, steps, floor=1 / condition).x - exact)
    assert (error <= 2 * rate**steps * a_norm(exact) * (1 + 1e-9)).all()


def test_a_converged_task_keeps_its_last_iterate():
    # The first iteration solves the identity; the other task needs 11 more.
    generator = torch.Generator().manual_seed(0)
    a = torch.stack([torch.eye(12, dtype=torch.float64), spd(1, 12, 100.0, generator)[0]])
    b = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    x, residual, _ = solve(a, b, 40, floor=0.01)
    torch.testing.assert_close(x[0], b[0])
    assert residual.max() < 1e-10


@given(n=st.integers(2, 40), condition=st.floats(1, 1e3), steps=st.integers(1, 60), seed=seeds)
def test_definite_tasks_never_stop(n, condition, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    a = spd(3, n, condition, generator).float()
    b = torch.randn(3, n, generator=generator)
    for floor in (0.0, 1 / condition):
        assert not solve(a, b, steps, floor=floor).stopped.any()


@st.composite
def hard_systems(draw, most=7):
    """Singular and indefinite systems, with right-hand sides inside or outside the range of A."""
    generator = torch.Generator().manual_seed(draw(seeds))
    rank, null = draw(st.integers(1, 25)), draw(st.integers(1, 25))
    eigenvalues = torch.logspace(0, -draw(st.floats(0, most)), rank, dtype=torch.float64)
    signs = torch.where(torch.rand(rank, generator=generator) < draw(shares), -1.0, 1.0)
    zeros = torch.tensor([0.0] * null, dtype=torch.float64)
    a = symmetric(torch.cat([signs * eigenvalues, zeros]), 3, generator)
    solution = torch.randn(3, rank + null, generator=generator, dtype=torch.float64)
    b = (a @ solution[..., None])[..., 0]
    b = b + draw(amounts) * torch.randn(b.shape, generator=generator, dtype=torch.float64)
    return a, b


shares = st.sampled_from([0.0, 0.0, 0.1, 0.6])
amounts = st.sampled_from([0.0, 1e-6, 1e-3, 1.0, 1e3])


@given(
    system=hard_systems(),
    steps=st.integers(0, 120),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_residual_never_exceeds_that_of_the_start(system, steps, dtype):
    a, b = (tensor.to(dtype) for tensor in system)
    x, residual, _ = solve(a, b, steps)
    true = residuals(a, b, x)
    assert true.max() <= 1 + 1e-6
    torch.testing.assert_close(residual.double(), true, rtol=1e-2, atol=1e-5)
    more = solve(a, b, 2 * steps).x
    assert (residuals(a, b, more) <= true + 1e-5).all()


def textbook_iterates(a, b, steps):
    """The iterates of one system in NumPy, up to the first p without positive curvature."""
    x, r = np.zeros_like(b), b
    p = r
    iterates = [x]
    for _ in range(steps):
        if p @ a @ p <= 1e-12 * np.linalg.norm(a, 2) * (p @ p):
            break
        length = (r @ r) / (p @ a @ p)
        x, new = x + length * p, r - length * (a @ p)
        p = new + (new @ new) / (r @ r) * p
        r = new
        iterates.append(x)
    return iterates


@given(system=hard_systems(most=3), steps=st.integers(0, 12))
def test_without_a_floor_it_is_the_iterate_of_least_residual(system, steps):
    a, b = system
    solved = solve(a, b, steps)
    for task in range(len(a)):
        matrix, right = a[task].numpy(), b[task].numpy()
        iterates = textbook_iterates(matrix, right, steps)
        least = min(np.linalg.norm(right - matrix @ x) for x in iterates)
        # Near a singular direction, changing b by 1e-15 moves the last iterate's residual by 1e-3.
        assert solved.residual[task] <= least / np.linalg.norm(right) * 1.001 + 1e-3


def test_a_floor_below_rounding_errors_is_ignored():
    generator = torch.Generator().manual_seed(0)
    eigenvalues = torch.cat([torch.logspace(0, -3, 10), torch.zeros(10)]).double()
    a = symmetric(eigenvalues, 4, generator)
    b = torch.randn(4, 20, generator=generator)
    for floor in (0.0, 1e-12, 1e-7):
        ridged = (a + floor * torch.eye(20, dtype=torch.float64)).float()
        assert solve(ridged, b, 12, floor=floor).residual.max() <= 1
    ridged = (a + 1e-4 * torch.eye(20, dtype=torch.float64)).float()
    assert solve(ridged, b, 40, floor=1e-4).residual.max() < 1e-2


def test_a_singular_system_with_a_solution_is_solved_and_does_not_stop():
    generator = torch.Generator().manual_seed(0)
    eigenvalues = torch.tensor([1.0, 0.5, 0.3, 0.1, 0.0, 0.0], dtype=torch.float64)
    a = symmetric(eigenvalues, 3, generator)
    b = (a @ torch.randn(3, 6, 1, generator=generator, dtype=torch.float64))[..., 0]
    x, residual, stopped = solve(a, b, 30)
    torch.testing.assert_close(x, (torch.linalg.pinv(a) @ b[..., None])[..., 0])
    assert residual.max() < 1e-10
    assert not stopped.any()


def test_zero_curvature_stops_a_task_for_good():
    # The second p is in the null space of A.
    a = torch.diag(torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64)).expand(1, 3, 3)
    b = torch.tensor([[3.0, 1.0, 0.0]], dtype=torch.float64)
    first = solve(a, b, 1)
    assert not first.stopped
    torch.testing.assert_close(first.x, 10 / 18 * b)
    for steps in (2, 3, 10):
        again = solve(a, b, steps)
        assert torch.equal(again.x, first.x)
        assert again.stopped


def test_negative_curvature_stops_a_task_for_good():
    # p'Ap < 0 for the second direction. Further steps along r + p would not be CG.
    a = torch.diag(torch.tensor([1.0, 1.0, -2.0], dtype=torch.float64)).expand(1, 3, 3)
    b = torch.tensor([[1.0, 2.0, 1.0]], dtype=torch.float64)
    # With a (wrong) floor the result is the iterate at which the task stops.
    first = solve(a, b, 1, floor=0.1)
    for steps in (2, 3, 10):
        again = solve(a, b, steps, floor=0.1)
        assert torch.equal(again.x, first.x)
        assert again.stopped
    along = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    assert torch.equal(solve(a, along, 5).x, torch.zeros(1, 3, dtype=torch.float64))


def test_a_stopped_task_does_not_affect_the_others():
    generator = torch.Generator().manual_seed(0)
    definite = spd(1, 6, 10.0, generator)
    singular = symmetric(torch.tensor([1.0, 0.5, 0, 0, 0, 0]).double(), 1, generator)
    b = torch.randn(1, 6, generator=generator, dtype=torch.float64)
    both = solve(torch.cat([definite, singular]), torch.cat([b, b]), 6, floor=0.01)
    assert both.stopped.tolist() == [False, True]
    torch.testing.assert_close(both.x[0], torch.linalg.solve(definite[0], b[0]))


@given(exponent=st.integers(-100, 100), steps=st.integers(0, 8), warm=st.booleans(), seed=seeds)
def test_scaling_the_right_hand_side_scales_the_solution_exactly(exponent, steps, warm, seed):
    """The result is exact, although squares of such numbers under- and overflow in float32."""
    generator = torch.Generator().manual_seed(seed)
    a = spd(2, 6, 100, generator).float()
    b = torch.randn(2, 6, generator=generator)
    x0 = torch.randn(2, 6, generator=generator) if warm else None
    factor = 2.0**exponent
    usual = solve(a, b, steps, x0)
    scaled = solve(a, b * factor, steps, None if x0 is None else x0 * factor)
    torch.testing.assert_close(scaled.x, usual.x * factor, rtol=0, atol=0)
    torch.testing.assert_close(scaled.residual, usual.residual, rtol=0, atol=0)
    assert scaled.stopped.tolist() == usual.stopped.tolist()


@pytest.mark.parametrize("argument", ["matrix", "right-hand side", "start"])
def test_a_nan_makes_only_the_residual_of_its_task_nan(argument):
    a, b, x0 = torch.eye(3).repeat(2, 1, 1), torch.ones(2, 3), torch.zeros(2, 3)
    {"matrix": a, "right-hand side": b, "start": x0}[argument][0, 0] = math.nan
    for steps in (0, 1, 5):
        residual = solve(a, b, steps, x0).residual
        assert residual[0].isnan()
        assert residual[1] == (0 if steps else 1)


def test_the_residual_for_b_zero_is_relative_to_the_start():
    zeros, x0 = torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 0.0]])
    a = torch.diag(torch.tensor([1.0, 2.0, 3.0])).expand(2, 3, 3)
    for steps in (0, 1, 2, 20):
        x, residual, _ = solve(a, zeros, steps, x0, floor=1.0)
        left = (a @ x[..., None])[1].norm() / (a @ x0[..., None])[1].norm()
        torch.testing.assert_close(residual, torch.stack([torch.tensor(0.0), left]))
        assert (residual[1] == 1) == (steps == 0)
    assert residual[1] < 1e-6
