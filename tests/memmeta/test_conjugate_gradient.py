import torch
from hypothesis import given
from hypothesis import strategies as st

from memmeta.conjugate_gradient import conjugate_gradient


def spd(tasks: int, n: int, condition: float, generator: torch.Generator) -> torch.Tensor:
    """Random symmetric positive definite matrices with a spectrum from 1 / condition to 1."""
    q = torch.linalg.qr(torch.randn(tasks, n, n, generator=generator, dtype=torch.float64)).Q
    eigenvalues = torch.logspace(0, 1, n, dtype=torch.float64, base=1 / condition)
    return q @ (eigenvalues[:, None] * q.mT)


def solve(a, b, steps, x0=None):
    return conjugate_gradient(lambda p: (a @ p[..., None])[..., 0], b, steps, x0)


@given(
    tasks=st.integers(1, 4),
    n=st.integers(1, 12),
    condition=st.floats(1, 1e4),
    seed=st.integers(0, 10_000),
    warm=st.booleans(),
)
def test_equals_a_dense_solve(tasks, n, condition, seed, warm):
    generator = torch.Generator().manual_seed(seed)
    a = spd(tasks, n, condition, generator)
    b = torch.randn(tasks, n, generator=generator, dtype=torch.float64)
    x0 = torch.randn(b.shape, generator=generator, dtype=torch.float64) if warm else None
    # Three times n iterations: far past convergence, where rounding alone is left.
    x, residual = solve(a, b, 3 * n, x0)
    torch.testing.assert_close(x, torch.linalg.solve(a, b), rtol=1e-6, atol=1e-6)
    assert residual.max() < 1e-8


@given(steps=st.integers(0, 10), condition=st.floats(2, 1e3), seed=st.integers(0, 10_000))
def test_error_stays_under_the_textbook_bound(steps, condition, seed):
    generator = torch.Generator().manual_seed(seed)
    a = spd(2, 12, condition, generator)
    b = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    exact = torch.linalg.solve(a, b)

    def a_norm(e):
        return torch.einsum("ti,tij,tj->t", e, a, e).sqrt()

    rate = (condition**0.5 - 1) / (condition**0.5 + 1)
    error = a_norm(solve(a, b, steps)[0] - exact)
    assert (error <= 2 * rate**steps * a_norm(exact) * (1 + 1e-9)).all()


def test_converged_task_keeps_its_last_iterate():
    # The identity is solved by the first iteration; the other task still moves for 11 more.
    generator = torch.Generator().manual_seed(0)
    a = torch.stack([torch.eye(12, dtype=torch.float64), spd(1, 12, 100.0, generator)[0]])
    b = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    x, residual = solve(a, b, 40)
    torch.testing.assert_close(x[0], b[0])
    assert residual.max() < 1e-10


def test_zero_right_hand_side_gives_zero():
    x, residual = solve(torch.eye(3).expand(2, 3, 3), torch.zeros(2, 3), 5)
    assert torch.equal(x, torch.zeros(2, 3))
    assert torch.equal(residual, torch.zeros(2))


def test_singular_matrix_gives_finite_numbers_and_reports_the_residual():
    a = torch.diag(torch.tensor([1.0, 0.0])).expand(1, 2, 2)
    x, residual = solve(a, torch.tensor([[1.0, 1.0]]), 10)
    assert x.isfinite().all()
    assert residual.item() > 0.5


def test_no_curvature_stops_a_task_for_good():
    # The second direction is (0, -57, 57), along which A is 0. Going on from there, along r + p,
    # would come to about (0, -60.2, 60.2).
    a = torch.diag(torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64)).expand(1, 3, 3)
    b = torch.tensor([[1.0, -3.0, 3.0]], dtype=torch.float64)
    for steps in (1, 2, 3, 10):
        assert solve(a, b, steps)[0].tolist() == [[9.5, -28.5, 28.5]]


def test_negative_curvature_stops_a_task_for_good():
    # At the second direction p'Ap < 0. Going on from there, along r + p, would be no CG at all.
    a = torch.diag(torch.tensor([1.0, 1.0, -2.0], dtype=torch.float64)).expand(1, 3, 3)
    b = torch.tensor([[1.0, 2.0, 1.0]], dtype=torch.float64)
    first, _ = solve(a, b, 1)
    for steps in (2, 3, 10):
        assert torch.equal(solve(a, b, steps)[0], first)
    along = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    assert torch.equal(solve(a, along, 5)[0], torch.zeros(1, 3, dtype=torch.float64))
