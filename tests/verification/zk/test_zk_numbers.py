"""Integers of proofs: the grid, products, folding, hashed inputs, tags."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verification.zk.errors import TooLarge
from verification.zk.integers import (
    fold,
    folding,
    hashed_row,
    largest_fold,
    off_grid,
    on_grid,
    product,
    require_in_reach,
    sampled,
    tag,
)


@given(st.lists(st.floats(-60_000, 60_000, width=16), min_size=1, max_size=8))
def test_float16_is_exact_on_the_grid(values: list[float]) -> None:
    weights = torch.tensor([values], dtype=torch.float16)
    assert off_grid(weights) == 0
    assert [v / 2**24 for v in on_grid(weights)[0]] == weights.double()[0].tolist()


@given(st.floats(-2, 2, width=32))
def test_every_value_is_rounded_half_away_from_zero(value: float) -> None:
    found = on_grid(torch.tensor([[value]]))[0][0]
    scaled = abs(value) * 2**24
    assert abs(found) == int(scaled + 0.5)
    assert off_grid(torch.tensor([[value]])) <= 2**-25


def test_a_small_bfloat16_is_off_the_grid() -> None:
    small = torch.tensor([[2.0**-20 * 1.0078125]], dtype=torch.bfloat16)
    assert 0 < off_grid(small) <= 2**-25


def test_the_product_is_that_of_the_factors() -> None:
    g = torch.Generator().manual_seed(0)
    x, a, b = (torch.randn(m, n, generator=g).half() for m, n in ((3, 8), (2, 8), (5, 2)))
    integers = product(on_grid(x), on_grid(a), on_grid(b))
    exact = torch.tensor([[v / 2.0**72 for v in row] for row in integers], dtype=torch.float64)
    wanted = x.double() @ a.double().T @ b.double().T
    assert torch.allclose(exact, wanted, rtol=1e-12, atol=1e-12)


@given(st.integers(1, 6), st.text("abc", min_size=1, max_size=4))
def test_folding_is_linear(rows: int, statement: str) -> None:
    coefficients = folding(statement, rows)
    assert len(coefficients) == rows and all(0 <= c < 2**32 for c in coefficients)
    assert rows > 1 or coefficients == [1]
    x = [[i * 3 + j for j in range(4)] for i in range(rows)]
    wanted = [sum(c * x[i][j] for i, c in enumerate(coefficients)) for j in range(4)]
    assert fold(x, coefficients) == wanted


def test_hashed_inputs_depend_on_manifest_module_and_nonce() -> None:
    rows = [hashed_row(m, n, o, 300) for m in "ab" for n in "ab" for o in "ab"]
    assert len({tuple(row) for row in rows}) == 8
    values = [value for row in rows for value in row]
    assert min(values) >= -(2**23) and max(values) < 2**23
    assert abs(sum(values)) / len(values) < 2**20  # balanced: 13 standard errors
    assert hashed_row("a", "a", "a", 300) == rows[0]


def test_sampling_keeps_the_order_and_covers_every_module() -> None:
    names = [f"m{i}" for i in range(12)]
    seen: set[str] = set()
    for nonce in range(40):
        found = sampled("manifest", str(nonce), names, 3)
        assert len(found) == 3 and found == sorted(found, key=names.index)
        seen |= set(found)
    assert seen == set(names)
    assert sampled("manifest", "n", names, 12) == names


def test_the_tag_holds_240_bits() -> None:
    first, second = tag("0123456789abcdef" * 4)
    assert f"{first:030x}{second:030x}" == ("0123456789abcdef" * 4)[:60]


def test_sums_beyond_the_circuit_are_refused() -> None:
    require_in_reach([1 << 40], [[1 << 40]], [[1 << 45]])
    with pytest.raises(TooLarge, match="126 bits"):
        require_in_reach([1 << 40], [[1 << 40]], [[1 << 46]])
    with pytest.raises(TooLarge, match="126 bits"):
        require_in_reach([1 << 70, -(1 << 70)], [[1 << 55, 1 << 55]], [[0]])


@given(st.lists(st.lists(st.integers(-99, 99), min_size=3, max_size=3), min_size=1, max_size=4))
def test_no_fold_is_larger_than_the_largest(rows: list[list[int]]) -> None:
    most = largest_fold(rows)
    for statement in ("one", "two"):
        folded = fold(rows, folding(statement, len(rows)))
        assert all(abs(value) <= bound for value, bound in zip(folded, most, strict=True))
