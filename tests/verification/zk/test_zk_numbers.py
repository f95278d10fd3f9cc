"""Integers of proofs: the grid, products, folding, hashed inputs, tags."""

import hashlib
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verification.zk.errors import ChallengeError, TooLarge
from verification.zk.integers import (
    columns,
    fold,
    folding,
    hashed_row,
    integers_digest,
    largest_fold,
    off_grid,
    on_grid,
    product,
    require_in_reach,
    require_inputs,
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


def stream(*about: str) -> bytes:
    """1,200 bytes of SHAKE-256, as any other verifier derives them."""
    text = json.dumps(["lorasmith-zk-1", *about], separators=(",", ":"))
    return hashlib.shake_256(text.encode()).digest(1200)


def numbers(content: bytes, size: int, count: int) -> list[int]:
    """Big-endian integers of `size` bytes."""
    return [int.from_bytes(content[i * size : (i + 1) * size], "big") for i in range(count)]


@given(st.integers(1, 300), st.text("ab", max_size=3))
def test_challenges_are_those_of_the_protocol(width: int, nonce: str) -> None:
    content = numbers(stream("challenge", "manifest", "module", nonce), 3, width)
    expected = [value - 2**23 for value in content]
    assert hashed_row("manifest", "module", nonce, width) == expected


@given(st.integers(2, 300), st.text("ab", max_size=3))
def test_coefficients_are_those_of_the_protocol(rows: int, statement: str) -> None:
    assert folding(statement, rows) == numbers(stream("fold", statement), 4, rows)


@given(st.integers(1, 12), st.text("ab", max_size=3))
def test_samples_are_those_of_the_protocol(count: int, nonce: str) -> None:
    names = [f"m{i}" for i in range(12)]
    ranked = sorted(names, key=lambda name: stream("sample", "manifest", nonce, name)[:32])
    expected = sorted(ranked[:count], key=names.index)
    assert sampled("manifest", nonce, names, count) == expected


@pytest.mark.parametrize(
    ("largest", "count"),
    [(0, 1), (1, 1), (2**16 - 1, 1), (2**16, 2), (2**32 - 1, 2), (2**32, 3), (2**40 - 1, 3)],
)
def test_a_column_is_counted_for_every_sixteen_bits(largest: int, count: int) -> None:
    assert columns([largest]) == columns([0, -largest, 0]) == count


@pytest.mark.parametrize("sign", [1, -1])
def test_inputs_are_below_two_to_the_forty(sign: int) -> None:
    require_inputs([[0, sign * (2**40 - 1)], [sign * (2**40 - 1)]])
    for rows in ([[2**40]], [[0, 0], [0, 2**40]]):
        with pytest.raises(ChallengeError):
            require_inputs([[sign * value for value in row] for row in rows])


def test_the_reach_is_of_every_sum_whatever_its_signs() -> None:
    half, full = 1 << 125, 1 << 126
    require_in_reach([full - 1], [[1]], [[1]])
    require_in_reach([1], [[1], [1]], [[half - 1, half]])
    for x, a, b in (
        ([full], [[1]], [[0]]),
        ([-full], [[1]], [[0]]),
        ([half, half], [[1, -1]], [[0]]),
        ([1], [[1], [1]], [[half, -half]]),
        ([1], [[1]], [[0], [-full]]),
    ):
        with pytest.raises(TooLarge):
            require_in_reach(x, a, b)


def test_bounds_of_a_fold_are_of_the_largest_coefficients() -> None:
    assert largest_fold([[3, -4]]) == [3, 4]
    assert largest_fold([[3, -4], [-1, 2]]) == [4 * (2**32 - 1), 6 * (2**32 - 1)]


def test_a_digest_of_integers_tells_sizes_and_rows_apart() -> None:
    matrices = ([[1, 2]], [[12]], [[1], [2]], [[2, 1]], [[-1, 2]], [[1, 2], []], [[2**80, 2]])
    assert len({integers_digest(rows) for rows in matrices}) == len(matrices)
    expected = hashlib.sha256(b'[["1","-20"],["3","4"]]').hexdigest()
    assert integers_digest([[1, -20], [3, 4]]) == expected


def test_rows_of_other_lengths_are_no_factors() -> None:
    with pytest.raises(ValueError):
        product([[1, 2]], [[1]], [[1]])
    with pytest.raises(ValueError):
        fold([[1], [1, 2]], [1, 1])
    with pytest.raises(ValueError):
        require_in_reach([1], [[1, 2]], [[1]])
    with pytest.raises(ValueError):
        require_in_reach([1], [[1]], [[1, 2]])
