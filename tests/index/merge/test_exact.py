"""The exact weighted sum: against dense sums, under changes of gauge, and its errors."""

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from index.merge.weighted_sum import sum_by_module, weighted_sum
from library.adapter import Adapter
from library.errors import LayoutMismatch, UsageError
from library.layout import layout_of

LAYOUT = layout_of(tiny.config("llama"), rank=3)


def dense_sum(adapters: list[Adapter], weights: list[float], row: int = 0) -> dict[str, Tensor]:
    parts = [
        {k: v.double() * w for k, v in tiny.deltas(a.to(dtype=torch.float64), row).items()}
        for a, w in zip(adapters, weights, strict=True)
    ]
    return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}


def error(made: Adapter, wanted: dict[str, Tensor], row: int = 0) -> float:
    """Largest relative Frobenius error of any module."""
    found = tiny.deltas(made.to(dtype=torch.float64), row)
    return max(float((found[k] - w).norm() / w.norm().clamp_min(1e-30)) for k, w in wanted.items())


def some(ranks: list[list[int]], **kwargs) -> list[Adapter]:
    return [
        tiny.adapter(tiny.with_ranks(LAYOUT, own), seed=i, **kwargs) for i, own in enumerate(ranks)
    ]


@given(
    ranks=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=4),
    data=st.data(),
)
def test_it_is_the_sum_of_the_deltas_at_any_ranks(ranks, data) -> None:
    adapters = some(ranks)
    weight = st.floats(-2, 2).filter(lambda w: abs(w) > 0.05)
    weights = data.draw(st.lists(weight, min_size=len(ranks), max_size=len(ranks)))
    made = weighted_sum(adapters, weights)
    assert [s.rank for s in made.layout.sites] == [
        sum(own[i % len(own)] for own in ranks) for i in range(len(LAYOUT.sites))
    ]
    assert error(made, dense_sum(adapters, weights)) < 1e-5


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_recompressed_it_is_the_best_of_that_rank(rank: int) -> None:
    adapters, weights = some([[3], [2, 5], [4]]), [0.5, -1.2, 0.8]
    made = weighted_sum(adapters, weights, rank)
    assert made.layout == LAYOUT.with_rank(rank)
    for name, delta in dense_sum(adapters, weights).items():
        u, s, vh = torch.linalg.svd(delta)
        best = (u[:, :rank] * s[:rank]) @ vh[:rank]
        assert error(made, {name: best}) < 1e-5


def test_a_rank_above_the_sum_pads_and_keeps_the_sum_exact() -> None:
    adapters = some([[1], [2]])
    made = weighted_sum(adapters, [1.0, 2.0], 20)
    assert made.layout.rank == 20
    assert error(made, dense_sum(adapters, [1.0, 2.0])) < 1e-5


def test_each_row_of_stacks_is_summed_by_itself() -> None:
    adapters = some([[2], [3]], n=2)
    made = weighted_sum(adapters, [0.3, 0.7], 4)
    for row in (0, 1):
        alone = weighted_sum([item[[row]] for item in adapters], [0.3, 0.7], 4)
        assert error(made, tiny.deltas(alone), row) < 1e-6


def test_opposite_adapters_cancel() -> None:
    adapter = some([[3]])[0]
    for made in (weighted_sum([adapter, adapter], [1.0, -1.0], r) for r in (None, 3)):
        assert all(float(delta.norm()) < 1e-6 for delta in tiny.deltas(made).values())


def test_float64_stays_and_bfloat16_is_summed_in_float32() -> None:
    adapter = some([[3]], dtype=torch.float64)[0]
    half = adapter.to(dtype=torch.bfloat16)
    assert weighted_sum([adapter, half], [1.0, 1.0]).factors()[0].dtype == torch.float64
    assert weighted_sum([half, half], [1.0, 1.0], 2).factors()[0].dtype == torch.float32


def test_what_cannot_be_summed_is_said() -> None:
    adapter = some([[3]])[0]
    other = tiny.adapter(layout_of(tiny.config("llama", hidden_size=64)))
    with pytest.raises(UsageError, match="no adapter"):
        weighted_sum([], [])
    with pytest.raises(UsageError, match="2 adapters need as many weights, not 1"):
        weighted_sum([adapter, adapter], [1.0])
    with pytest.raises(UsageError, match="finite"):
        weighted_sum([adapter], [float("nan")])
    with pytest.raises(UsageError, match="rank must be at least 1"):
        weighted_sum([adapter], [1.0], 0)
    with pytest.raises(
        LayoutMismatch, match=r"q_proj cannot be in one layout of .*32x32.* and .*64x32"
    ):
        weighted_sum([adapter, other], [1.0, 1.0])


def test_weights_by_module_and_their_gradient() -> None:
    adapters = some([[2], [1, 3]])
    weights = torch.rand(2, 1, len(LAYOUT.sites), dtype=torch.float64, requires_grad=True)
    made = sum_by_module(adapters, weights)
    found = [tiny.deltas(item) for item in adapters]
    for i, (name, delta) in enumerate(tiny.deltas(made).items()):
        wanted = sum(w * part[name] for w, part in zip(weights[:, 0, i], found, strict=True))
        torch.testing.assert_close(delta, wanted.float())
    torch.stack(list(tiny.deltas(made).values())[:1]).sum().backward()
    expected = torch.stack([next(iter(part.values())).sum() for part in found])
    assert weights.grad is not None
    torch.testing.assert_close(weights.grad[:, 0, 0].float(), expected)
    assert not weights.grad[:, 0, 1:].any()


def test_a_large_sum_is_projected_and_as_good_as_the_best() -> None:
    layout = layout_of(tiny.config("llama", hidden_size=80), rank=16)
    adapters = [tiny.adapter(layout, seed=i) for i in range(40)]
    shared = adapters[0].A
    near = [Adapter(layout, {k: shared[k] + 0.1 * a.A[k] for k in a.A}, a.B) for a in adapters]
    weights = [1 / 40] * 40
    made, again = (weighted_sum(near, weights, 6) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(made.factors(), again.factors(), strict=True))
    for name, delta in dense_sum(near, weights).items():
        best = float(torch.linalg.svdvals(delta)[6:].norm())
        ours = float((tiny.deltas(made)[name].double() - delta).norm())
        assert best * (1 - 1e-6) <= ours < 1.001 * best
