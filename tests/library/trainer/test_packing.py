"""Packed batches: no row is lost or seen by another; losses and gradients are as on a CPU."""

from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from library.base.batches import TokenRow
from library.base.multi_adapter import MultiAdapter
from library.layout import layout_of
from library.trainer.loss_backends import PackedBackend, SharingBackend
from library.trainer.packing import CELLS, LENGTH, packed

ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 300), st.integers(1, 260)), min_size=1, max_size=120
)


@given(ROWS)
def test_every_row_is_there_once_and_its_answers_are_asked_for(
    sizes: list[tuple[int, int, int]],
) -> None:
    rows = [
        TokenRow(owner, [10 + i] * prompt, list(range(1000, 1000 + answer)))
        for i, (owner, prompt, answer) in enumerate(sizes)
    ]
    seen = []
    for batch, order in packed(rows, [1.0 + row.owner for row in rows], pad=0):
        assert batch.ids.numel() <= CELLS + 2 * batch.ids.shape[1]
        flat = {name: getattr(batch, name).flatten() for name in ("ids", "segments", "owners")}
        real = batch.weights > 0
        for segment, number in enumerate(order):
            row, inside = rows[number], flat["segments"] == segment
            assert flat["ids"][inside].tolist() == row.prompt + row.answer
            assert set(flat["owners"][inside].tolist()) == {row.owner}
            assert batch.positions.flatten()[inside].tolist() == list(range(len(row)))
            predicted = real & inside[batch.answers]
            assert batch.targets[predicted].tolist() == row.answer
            assert (batch.weights[predicted] == 1 + row.owner).all()
        assert int(real.sum()) == sum(len(rows[i].answer) for i in order)
        assert (flat["ids"][flat["segments"] == -1] == 0).all()
        seen += order
    assert sorted(seen) == list(range(len(rows)))


def rows_of(owners: int) -> list[TokenRow]:
    """Rows that share sequences, and one that is longer than a sequence is by default."""
    generator = torch.Generator().manual_seed(1)

    def some(low: int, high: int) -> list[int]:
        size = int(torch.randint(low, high, (), generator=generator))
        return torch.randint(3, 61, (size,), generator=generator).tolist()

    rows = [TokenRow(i % owners, some(1, 40), some(1, 12)) for i in range(30)]
    return [*rows, TokenRow(0, some(LENGTH, LENGTH + 9), some(1, 12))]


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt2"])
def test_losses_and_gradients_are_those_of_the_other_backend(family: str) -> None:
    config = tiny.config(family)
    for name in ("max_position_embeddings", "n_positions"):
        if hasattr(config, name):
            setattr(config, name, 1024)
    model = tiny.model(config, dtype=torch.float64)
    layout = tiny.with_ranks(layout_of(model.config, rank=4), [4, 2, 3])
    adapters, hooks = tiny.adapter(layout, 3, dtype=torch.float64), MultiAdapter(model, layout)
    rows = rows_of(3)
    weights = [(0.5, 0.25, 2.0)[row.owner] for row in rows]
    backends: list[Any] = [
        SharingBackend(model, hooks, 0, parts=2),
        PackedBackend(model, hooks, 0, adapters),
    ]
    plain, dense = [backend.gradients(rows, weights, adapters) for backend in backends]
    exact = 1e-6 if family == "gemma2" else 1e-11  # its softmax is in float32
    for actual, expected in zip(dense, plain, strict=True):
        torch.testing.assert_close(actual, expected, atol=exact, rtol=100 * exact)
    scores = [backend.scores(rows, adapters) for backend in backends]
    for actual, expected in zip(*scores, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
