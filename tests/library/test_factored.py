"""Algebra on ΔW = B·A without forming it, held to dense linear algebra."""

import pytest
import torch
from differences import delta_distance, delta_norm
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from library.factored import canonical, squared_delta_distance, with_rank

SIZES = st.integers(1, 9)
SEEDS = st.integers(0, 10_000)


def factors(rank: int, columns: int, rows: int, seed: int, *lead: int) -> tuple[Tensor, Tensor]:
    """Random A and B whose singular values span four orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(*lead, rank, columns, generator=generator, dtype=torch.float64)
    b = torch.randn(*lead, rows, rank, generator=generator, dtype=torch.float64)
    return a, b * torch.logspace(0, -4, rank, dtype=torch.float64)


@given(SIZES, SIZES, SIZES, SIZES, SEEDS)
def test_distances_are_those_of_the_dense_matrices(
    r: int, s: int, columns: int, rows: int, seed: int
) -> None:
    a1, b1 = factors(r, columns, rows, seed, 2)
    a2, b2 = factors(s, columns, rows, seed + 1, 2)
    dense = torch.linalg.matrix_norm(b1 @ a1 - b2 @ a2)
    torch.testing.assert_close(delta_distance(a1, b1, a2, b2), dense)
    torch.testing.assert_close(squared_delta_distance(a1, b1, a2, b2), dense**2)
    torch.testing.assert_close(delta_norm(a1, b1), torch.linalg.matrix_norm(b1 @ a1))


def test_distances_of_near_equals_do_not_cancel() -> None:
    a, b = factors(4, 64, 32, 0)
    nudge = 1e-9 * factors(4, 64, 32, 1)[1]
    exact = torch.linalg.matrix_norm(nudge @ a)
    torch.testing.assert_close(delta_distance(a, b, a, b + nudge), exact, rtol=1e-5, atol=0)
    assert delta_distance(a, b, a, b) < 1e-12
    assert delta_distance(a.float(), b.float(), a.float(), b.float()).dtype == torch.float64


@given(SIZES, SIZES, SIZES, SEEDS)
def test_the_canonical_form_is_a_balanced_svd(rank: int, cols: int, rows: int, seed: int) -> None:
    a, b = factors(rank, cols, rows, seed, 3)
    ca, cb = canonical(a, b)
    torch.testing.assert_close(cb @ ca, b @ a)
    gram_a, gram_b = ca @ ca.mT, cb.mT @ cb
    singular = torch.linalg.svdvals(b @ a)[..., :rank]
    singular = torch.nn.functional.pad(singular, (0, rank - singular.shape[-1]))
    torch.testing.assert_close(gram_a, torch.diag_embed(singular), atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(gram_b, torch.diag_embed(singular), atol=1e-8, rtol=1e-8)


@given(st.integers(1, 6), SEEDS)
def test_the_canonical_form_does_not_depend_on_the_gauge(rank: int, seed: int) -> None:
    a, b = factors(rank, 12, 8, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    noise = torch.randn(rank, rank, generator=generator, dtype=torch.float64)
    gauge = torch.linalg.matrix_exp(0.5 * noise)  # always invertible
    ca, cb = canonical(a, b)
    ga, gb = canonical(torch.linalg.solve(gauge, a), b @ gauge)
    torch.testing.assert_close(gb @ ga, b @ a)
    torch.testing.assert_close(ga, ca, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(gb, cb, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["deficient", "repeated", "zero", "padded"])
def test_delta_survives_where_the_form_is_not_unique(kind: str) -> None:
    a, b = factors(4, 10, 7, 0)
    if kind == "deficient":
        b[:, 2], a[3] = b[:, 0], a[1]
    elif kind == "repeated":
        a = torch.linalg.qr(a.mT).Q.mT
        b = torch.linalg.qr(b).Q * torch.tensor([2.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    elif kind == "zero":
        b = torch.zeros_like(b)
    else:
        a[2:], b[:, 2:] = 0, 0
    for x, y in (canonical(a, b), with_rank(a, b, 4), with_rank(a, b, 6)):
        assert torch.isfinite(x).all() and torch.isfinite(y).all()
        torch.testing.assert_close(y @ x, b @ a, atol=1e-12, rtol=1e-9)
    x, y = with_rank(a, b, 3)
    best = torch.linalg.svdvals(b @ a)[3:].norm()
    torch.testing.assert_close(torch.linalg.matrix_norm(b @ a - y @ x), best, atol=1e-9, rtol=1e-9)


@given(st.integers(2, 8), SEEDS, st.sampled_from([torch.float32, torch.float64]))
def test_a_lower_rank_is_the_best_approximation(rank: int, seed: int, dtype: torch.dtype) -> None:
    a, b = factors(rank, 11, 9, seed)
    for lower in range(1, rank):
        x, y = with_rank(a.to(dtype), b.to(dtype), lower)
        assert (x.shape, y.shape, x.dtype) == ((lower, 11), (9, lower), dtype)
        u, s, vh = torch.linalg.svd(b @ a)
        dense = u[:, :lower] * s[:lower] @ vh[:lower]
        tolerance = 1e-9 if dtype is torch.float64 else 1e-4
        error = torch.linalg.matrix_norm(b @ a - (y @ x).double())
        torch.testing.assert_close(
            error, torch.linalg.matrix_norm(b @ a - dense), atol=tolerance, rtol=tolerance
        )


def test_a_higher_rank_is_padded_with_exact_zeros() -> None:
    a, b = factors(3, 10, 7, 0, 2)
    x, y = with_rank(a, b, 5)
    assert torch.equal(x[:, :3], a) and torch.equal(y[..., :3], b)
    assert not x[:, 3:].any() and not y[..., 3:].any()
    same_a, same_b = with_rank(a, b, 3)
    assert torch.equal(same_a, a) and torch.equal(same_b, b)


def test_the_training_distance_has_a_gradient_at_the_zero_start() -> None:
    a1, b1 = factors(3, 10, 7, 0)
    a2, b2 = factors(2, 10, 7, 1)
    a1.requires_grad_()
    b1 = torch.zeros_like(b1).requires_grad_()
    squared_delta_distance(a1, b1, a2, b2).backward()
    assert a1.grad is not None and b1.grad is not None
    assert not a1.grad.any()
    torch.testing.assert_close(b1.grad, -2 * (b2 @ a2) @ a1.detach().mT)  # of ‖B·A − ΔW‖²
