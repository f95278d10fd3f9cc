"""Sequences of rows behind what they share: gradients and losses are those of each row alone."""

from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from library.adapter import Adapter
from library.base.batches import TokenRow, grouped
from library.base.loss import answer_logits, token_losses
from library.base.multi_adapter import MultiAdapter
from library.layout import Layout, layout_of
from library.trainer.loss_backends import SharingBackend
from library.trainer.packing import SHARED
from library.trainer.shared_prefix import LENGTH, shared_prefix_batches

WEIGHTS = [0.5, 0.25, 2.0]
DOUBLE = ("gpt2", "gpt_neox", "opt")  # the others' norms are in float32, whatever the base is in
IDS = st.integers(3, 5)  # few, so that rows share beginnings, or all of their prompt
ROWS = st.lists(
    st.builds(
        TokenRow,
        st.integers(0, 2),
        st.lists(IDS, min_size=1, max_size=6),
        st.lists(IDS, min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=12,
)


def setup(family: str, dtype: torch.dtype) -> tuple[Any, Layout, Adapter]:
    config = tiny.config(family)
    for name in ("max_position_embeddings", "n_positions"):
        if hasattr(config, name):
            setattr(config, name, 1024)
    model = tiny.model(config, dtype=dtype)
    layout = tiny.with_ranks(layout_of(config, rank=4), [4, 2, 3])
    return model, layout, tiny.adapter(layout, 3, dtype=dtype)


def weights_of(rows: list[TokenRow]) -> list[float]:
    return [WEIGHTS[row.owner] for row in rows]


def row_by_row(
    model: Any, hooks: MultiAdapter, rows: list[TokenRow], adapters: Adapter
) -> list[Tensor]:
    """The gradients, of one row after another and unpadded attention."""
    leaves = adapters.detached()
    for row in rows:
        (batch,) = grouped([row], 0, 1)
        hooks.set(leaves, batch.rows)
        logits = answer_logits(model, batch.ids, batch.answer)
        losses, _ = token_losses(logits, batch.ids, batch.answer)
        (losses.sum() * WEIGHTS[row.owner]).backward()
    hooks.clear()
    gradients = [leaf.grad for leaf in leaves.factors()]
    return [gradient for gradient in gradients if gradient is not None]


def assert_same_gradients(family: str, dtype: torch.dtype, rows: list[TokenRow]) -> None:
    model, layout, adapters = setup(family, dtype)
    hooks = MultiAdapter(model, layout)
    expected = row_by_row(model, hooks, rows, adapters)
    exact = 1e-9 if dtype == torch.float64 and family in DOUBLE else 1e-5
    for parts in (1, 3):
        backend = SharingBackend(model, hooks, 0, parts)
        actual = backend.gradients(rows, weights_of(rows), adapters)
        for one, two in zip(actual, expected, strict=True):
            torch.testing.assert_close(one, two, atol=exact * float(two.abs().max()), rtol=0)
    hooks.close()


@settings(max_examples=25, deadline=None)
@given(ROWS, st.sampled_from([torch.float32, torch.float64]))
def test_gradients_are_those_of_each_row_alone(rows: list[TokenRow], dtype: torch.dtype) -> None:
    assert_same_gradients("gpt2", dtype, rows)


@pytest.mark.parametrize(
    "family", ["llama", "qwen2", "gemma2", "gpt2", "phi3", "gpt_neox", "granite", "cohere", "opt"]
)
def test_so_they_are_in_every_family_and_over_several_sequences(family: str) -> None:
    generator = torch.Generator().manual_seed(1)

    def some(size: int) -> list[int]:
        return torch.randint(3, 61, (size,), generator=generator).tolist()

    template = some(20)
    rows = [TokenRow(i % 2, template + some(5 * i), some(1 + i % 3)) for i in range(24)]
    rows += [*rows[:4], TokenRow(2, some(LENGTH + 9), some(2)), TokenRow(2, [7], [8])]
    assert_same_gradients(family, torch.float64, rows)


@given(ROWS, st.integers(1, 3))
def test_what_rows_share_is_there_once(rows: list[TokenRow], parts: int) -> None:
    batches = shared_prefix_batches(rows, weights_of(rows), 0, parts)
    owners = {row.owner for row in rows}
    assert len(batches) <= parts and sum(len(batch.ids) for batch in batches) == len(owners)
    for batch in batches:
        for i, owner in enumerate(batch.owners[:, 0].tolist()):
            owners.remove(owner)
            own = {(*row.prompt, -1, *row.answer): row for row in rows if row.owner == owner}
            shared, real = batch.segments[i] == SHARED, batch.segments[i] != -1
            beginning = batch.ids[i][shared].tolist()
            assert all(row.prompt[: len(beginning)] == beginning for row in own.values())
            rests = [len(row) - 1 - len(beginning) for row in own.values()]
            assert int(real.sum()) == len(beginning) + sum(rests)
            inside = batch.answers // batch.ids.shape[1] == i
            answers = [len(row.answer) for row in rows if row.owner == owner]
            assert float(batch.weights[inside].sum()) == WEIGHTS[owner] * sum(answers)


def test_a_neighbour_that_is_not_finite_or_longer_changes_nothing() -> None:
    model, layout, adapters = setup("llama", torch.float64)
    hooks = MultiAdapter(model, layout)
    mine = [TokenRow(0, [3, 4, 5], [6]), TokenRow(0, [3, 4, 7], [8, 9])]
    backend = SharingBackend(model, hooks, 0, 1)
    alone = backend.gradients(mine, weights_of(mine), adapters)
    for factor in adapters.factors():
        factor[1] = torch.nan
    both = [*mine, TokenRow(1, [5] * 30, [6])]
    together = backend.gradients(both, weights_of(both), adapters)
    for one, two in zip(together, alone, strict=True):
        torch.testing.assert_close(one[0], two[0], atol=1e-12, rtol=0)
        assert not one[1].isfinite().all() and not two[1].any()
