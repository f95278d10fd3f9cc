"""Patches: every entry in its place, zeros around; tokens that are kept only while they hold."""

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from weights import LAYOUT, base_of

from generator.layers.weight_tokens import PATCH, WeightTokens, patched, patches_along
from library.base.weights import group_weights
from library.errors import LayoutMismatch, UnsupportedModel
from library.layout import layout_of


@given(st.integers(1, 150), st.integers(1, 150))
def test_patches_hold_every_entry_once_and_zeros_around(out: int, width: int) -> None:
    w = torch.arange(1, 2 * out * width + 1).double().view(2, out, width)
    found = patched(w)
    rows, columns = patches_along(out), patches_along(width)
    assert found.shape == (2, rows, columns, PATCH**2)
    assert int((found != 0).sum()) == w.numel()
    back = torch.zeros(2, rows * PATCH, columns * PATCH, dtype=torch.float64)
    for i in range(rows):
        for j in range(columns):
            tile = found[:, i, j].view(2, PATCH, PATCH)
            back[:, i * PATCH : (i + 1) * PATCH, j * PATCH : (j + 1) * PATCH] = tile
    assert torch.equal(back[:, :out, :width], w)


def test_tokens_do_not_see_the_scale_of_a_matrix_nor_its_neighbours() -> None:
    tokens = WeightTokens(8).double()
    w = torch.randn(3, 70, 130, dtype=torch.float64)
    found = tokens(w)
    torch.testing.assert_close(tokens(5 * w), found)
    torch.testing.assert_close(tokens(w[[1]]), found[[1]])
    assert torch.isfinite(tokens(torch.zeros_like(w))).all()


def test_tokens_are_kept_for_a_base_until_the_map_changes() -> None:
    tokens, base, other = WeightTokens(8).double(), base_of(LAYOUT), base_of(LAYOUT, seed=1)
    group = LAYOUT.groups[0]

    def fresh(of: nn.Module) -> torch.Tensor:
        return tokens(group_weights(of, group).double())

    with torch.no_grad():
        first = tokens.of(base, group)
        torch.testing.assert_close(first, fresh(base))
        assert tokens.of(base, group) is first
        torch.testing.assert_close(tokens.of(other, group), fresh(other))
        assert tokens.of(base, group) is first
        torch.testing.assert_close(tokens.of(base, group, [2, 0]), first[[2, 0]])
        tiny.randomise(tokens)
        torch.testing.assert_close(tokens.of(base, group), fresh(base))
        assert not torch.allclose(tokens.of(base, group), first)
        tokens.float()
        assert tokens.of(base, group).dtype == torch.float32
    assert tokens.of(base, group).requires_grad  # where the map is trained it is run
    tokens.requires_grad_(False)
    assert tokens.of(base, group) is tokens.of(base, group)
    with torch.inference_mode():
        served = tokens.of(base, group)
    assert served.is_inference() and not tokens.of(base, group).is_inference()


def test_tokens_are_made_anew_after_a_step_of_any_optimiser() -> None:
    """A fused AdamW, as on a GPU, does not raise the version of what it changes."""
    tokens, base, group = WeightTokens(8), base_of(LAYOUT), LAYOUT.groups[0]
    for fused in (True, False):
        optimizer = torch.optim.AdamW(tokens.parameters(), lr=0.1, fused=fused)
        with torch.no_grad():
            before = tokens.of(base, group)
        tokens.of(base, group, [0]).sum().backward()
        optimizer.step()
        with torch.no_grad():
            after = tokens.of(base, group)
            fresh = tokens(group_weights(base, group))
        torch.testing.assert_close(after, fresh)
        assert not torch.allclose(before, after)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_weights_are_those_that_adapters_change(family: str) -> None:
    """GPT-2 stores (in, out); ΔW is (out, in)."""
    config = tiny.config(family)
    model, layout = tiny.model(config), layout_of(config, rank=2)
    merged = tiny.merged(model, tiny.adapter(layout))
    for group in layout.groups:
        changes = group_weights(merged, group) - group_weights(model, group)
        for site, change in zip(group.sites, changes, strict=True):
            torch.testing.assert_close(change, tiny.deltas(tiny.adapter(layout))[site.name])
    (group, *_) = layout.groups
    torch.testing.assert_close(group_weights(model, group, [1]), group_weights(model, group)[[1]])


def test_weights_that_cannot_be_read_are_named() -> None:
    group = LAYOUT.groups[0]
    with pytest.raises(LayoutMismatch, match=r"no weights of a module m\.layers\.0\.attn\.q"):
        group_weights(nn.Module(), group)
    base = base_of(LAYOUT)
    module = base.get_submodule("m.layers.2.attn.q")
    module.weight = nn.Parameter(torch.zeros(130, 71))
    with pytest.raises(LayoutMismatch, match=r"\(130, 71\); the layout says \(130, 70\)"):
        group_weights(base, group)
    module.weight = nn.Parameter(torch.zeros(130, 70, dtype=torch.int8), requires_grad=False)
    with pytest.raises(UnsupportedModel, match="stored as torch"):
        group_weights(base, group)
