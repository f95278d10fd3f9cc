"""Rows that come and go: their logits are those that each has alone, whatever stood beside it."""

from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from library.base.cached_rows import CachedRows

# Learned positions, a sliding window, one in every second layer beside a whole one.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {},
    "mistral": {"sliding_window": 4},
    "gemma2": {"sliding_window": 4},
}
MODELS = {
    family: tiny.model(tiny.config(family, **changes), dtype=torch.float64)
    for family, changes in FAMILIES.items()
}


def alone(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits after the last token, without any cache."""
    return model(input_ids=torch.tensor([ids])).logits[0, -1]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """In float64; gemma2 has its softmax in float32 whatever the model's type."""
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@given(
    events=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 9)),
            st.tuples(st.just("drop"), st.integers(0, 5)),
            st.tuples(st.just("step"), st.integers(1, 3)),
        ),
        min_size=3,
        max_size=9,
    )
)
@torch.inference_mode()
def test_rows_are_as_if_alone(family: str, events: list[tuple[str, int]]) -> None:
    model, cached = MODELS[family], CachedRows(MODELS[family])
    rows: list[list[int]] = []
    for number, (event, size) in enumerate([("add", 5), *events, ("step", 1)]):
        if event == "add":
            other, ids = CachedRows(model), tiny.tokens(1, size, seed=number)
            close(other.forward(ids)[0], alone(model, ids[0].tolist()))
            if rows:
                assert cached.growing
                cached.add(other)
            else:
                cached = other
            rows.append(ids[0].tolist())
        elif event == "drop" and len(rows) > 1:
            rows.pop(size % len(rows))
            stay = [i for i in range(len(rows) + 1) if i != size % (len(rows) + 1)]
            cached.keep(torch.tensor(stay))
            cached.trim()
        elif event == "step":
            for step in range(size):
                new = tiny.tokens(len(rows), 1, seed=100 * number + step)
                logits = cached.forward(new)
                for row, own, found in zip(rows, new.tolist(), logits, strict=True):
                    row += own
                    close(found, alone(model, row))
        assert cached.mask.sum(-1).tolist() == [len(row) for row in rows]
        assert cached.mask.shape[1] == max(map(len, rows))  # nothing is padding in every row


def test_what_keeps_other_states_than_keys_and_values_does_not_grow() -> None:
    family = {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}
    cached = CachedRows(tiny.model(tiny.config("lfm2", **family)))
    cached.forward(tiny.tokens(1, 5))
    assert not cached.growing
